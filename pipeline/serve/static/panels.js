// Beside the pictures: thresholds, what was seen last, and the machine.

import { send } from "./api.js";
import { duration, latency, number } from "./words.js";

const ROWS = 12;
const byId = (id) => document.getElementById(id);

/** The sliders; they follow the server unless somebody is moving them. */
export class DetectionPanel {
  constructor() {
    this.engine = {};
    this.held = 0;
    const slider = byId("threshold");
    slider.addEventListener("input", () => {
      byId("threshold-value").textContent = number(slider.valueAsNumber, 2);
      this.soon({ threshold: slider.valueAsNumber });
    });
    byId("threshold-reset").addEventListener("click", () => this.change({ threshold: null }));
    byId("class").addEventListener("change", () => this.showClass());
    byId("class-threshold").addEventListener("input", (event) => {
      byId("class-value").textContent = number(event.target.valueAsNumber, 2);
      const own = { ...this.engine.class_thresholds };
      own[byId("class").value] = event.target.valueAsNumber;
      this.soon({ class_thresholds: own });
    });
  }

  /** Send when the slider has rested for a moment. */
  soon(wish) {
    this.held = performance.now();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.change(wish), 150);
  }

  async change(wish) {
    try {
      const state = await send("PATCH", "/api/detection", wish);
      byId("detection-error").textContent = "";
      this.held = 0;
      this.update(state.engine);
    } catch (error) {
      byId("detection-error").textContent = error.message;
    }
  }

  update(engine) {
    this.engine = engine;
    const known = engine.threshold !== undefined && engine.threshold !== null;
    byId("threshold").disabled = byId("threshold-reset").disabled = !known;
    this.fillClasses(engine.class_names ?? []);
    if (performance.now() - this.held < 1500) return;
    if (known) byId("threshold").value = engine.threshold;
    byId("threshold-value").textContent = number(engine.threshold, 2);
    this.showClass();
    this.listClasses();
  }

  fillClasses(names) {
    byId("by-class").hidden = names.length < 2;
    const select = byId("class");
    if (select.length === names.length) return;
    select.replaceChildren(...names.map((name) => new Option(name, name)));
  }

  showClass() {
    const own = this.engine.class_thresholds?.[byId("class").value];
    byId("class-value").textContent = own === undefined ? "as all" : number(own, 2);
    byId("class-threshold").value = own ?? this.engine.threshold ?? 0.5;
  }

  listClasses() {
    const entries = Object.entries(this.engine.class_thresholds ?? {});
    const text = JSON.stringify(entries);
    if (text === this.listed) return; // rebuilding would take the focus away
    this.listed = text;
    const items = entries.map(([label, score]) => {
      const item = document.createElement("li");
      const drop = document.createElement("button");
      drop.textContent = "×";
      drop.setAttribute("aria-label", `Treat ${label} like all classes`);
      drop.addEventListener("click", () => {
        const rest = entries.filter(([other]) => other !== label);
        this.change({ class_thresholds: Object.fromEntries(rest) });
      });
      item.append(`${label} ${number(score, 2)}`, drop);
      return item;
    });
    byId("class-list").replaceChildren(...items);
  }
}

/** What was seen last, of all sources. */
export function showSightings(state) {
  const seen = state.sources
    .flatMap((source) => source.sightings.map((one) => ({ ...one, source: source.name })))
    .sort((a, b) => b.wall_time - a.wall_time || b.score - a.score)
    .slice(0, ROWS);
  byId("seen-none").hidden = seen.length > 0;
  const rows = seen.map((one) => {
    const row = document.createElement("tr");
    const ago = state.wall_time - one.wall_time;
    const count = one.count > 1 ? ` ×${one.count}` : "";
    row.append(
      cell(one.label + count),
      cell(one.source),
      cell(number(one.score, 2), "number"),
      cell(ago < 1.5 ? "now" : duration(ago), "number"),
    );
    return row;
  });
  byId("seen").replaceChildren(...rows);
}

function cell(text, className = "") {
  const node = document.createElement("td");
  node.textContent = text;
  node.className = className;
  return node;
}

/** The engine, how busy it is, and what waits in front of it. */
export class MachinePanel {
  constructor() {
    this.before = null;
  }

  update(state) {
    const { engine, queues } = state;
    const facts = [];
    if (engine.name === undefined) facts.push(["engine", "loading …"]);
    else facts.push(["engine", [engine.name, engine.precision].filter(Boolean).join(" ")]);
    if (engine.model) facts.push(["model", engine.model]);
    const span = this.before ? state.wall_time - this.before.wall_time : 0;
    if (span > 0 && engine.calls !== undefined) {
      const busy = (engine.busy_seconds - this.before.engine.busy_seconds) / span;
      facts.push(["calls", `${number((engine.calls - this.before.engine.calls) / span, 1)} /s`]);
      facts.push(["busy", `${number(busy * 100)} %`]);
    }
    const budget = state.latency_budget;
    if (budget) {
      const kept = budget.kept === null ? "" : `, kept ${number(budget.kept * 100)} %`;
      facts.push(["latency budget", `${latency(budget.budget_ms)}${kept}`]);
    }
    const sources = new Set(state.sources.map((source) => source.name));
    for (const [name, depth] of Object.entries(queues)) {
      if (!sources.has(name)) facts.push([`${name} queue`, number(depth)]);
    }
    this.before = state;
    const nodes = facts.flatMap(([name, value]) => [text("dt", name), text("dd", value)]);
    byId("machine").replaceChildren(...nodes);
  }
}

function text(kind, content) {
  const node = document.createElement(kind);
  node.textContent = content;
  return node;
}
