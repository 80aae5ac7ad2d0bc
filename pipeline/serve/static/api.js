// Requests that change something.

/** Send JSON; throws an Error that says what is wrong and what to do. */
export async function send(method, path, body) {
  const response = await fetch(path, {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (response.ok) return response.status === 204 ? null : response.json();
  const problem = await response.json().catch(() => ({ detail: response.statusText }));
  throw new Error([problem.detail, problem.remedy].filter(Boolean).join("; "));
}

/** The path of one source in the API. */
export function sourcePath(name) {
  return `/api/sources/${encodeURIComponent(name)}`;
}
