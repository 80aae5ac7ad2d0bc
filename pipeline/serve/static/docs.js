// The API, from its own OpenAPI document.

function node(kind, className, ...children) {
  const made = document.createElement(kind);
  made.className = className;
  made.append(...children);
  return made;
}

/** A schema with its references followed, as an example-like outline. */
function outline(schema, all) {
  if (!schema) return null;
  if (schema.$ref) return outline(all[schema.$ref.split("/").pop()], all);
  if (schema.anyOf) return schema.anyOf.map((one) => outline(one, all)).join(" or ");
  if (schema.type === "array") return [outline(schema.items, all)];
  if (schema.properties) {
    const entries = Object.entries(schema.properties);
    return Object.fromEntries(entries.map(([name, one]) => [name, outline(one, all)]));
  }
  return schema.type ?? "anything";
}

function operation(path, method, about, all) {
  const card = node("section", "card");
  const heading = node("h3", "path", node("span", "method", method.toUpperCase()), path);
  card.append(heading, node("p", "", about.summary ?? ""));
  const body = about.requestBody?.content?.["application/json"]?.schema;
  const answer = Object.entries(about.responses ?? {}).find(([code]) => code < "300");
  const given = answer?.[1].content?.["application/json"]?.schema;
  for (const [title, schema] of [["Takes", body], ["Gives", given]]) {
    const text = schema && outline(schema, all);
    if (!text || (typeof text === "object" && Object.keys(text).length === 0)) continue;
    const pre = node("pre", "", JSON.stringify(text, null, 2));
    const details = node("details", "", node("summary", "", title), pre);
    details.open = title === "Takes";
    card.append(details);
  }
  return card;
}

const api = await (await fetch("/openapi.json")).json();
const all = api.components?.schemas ?? {};
const cards = Object.entries(api.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, about]) => operation(path, method, about, all)),
);
document.getElementById("docs").replaceChildren(node("p", "quiet", api.info.description), ...cards);
