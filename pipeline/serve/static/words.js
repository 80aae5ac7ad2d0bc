// How states and numbers are said.

const QUIET = { word: "ready", tone: "quiet" };
const STATES = {
  READY: QUIET,
  CONNECTING: { word: "connecting", tone: "warn" },
  RUNNING: { word: "live", tone: "good" },
  STALLED: { word: "stalled", tone: "warn" },
  BACKOFF: { word: "cannot connect", tone: "bad" },
  PAUSED: { word: "paused", tone: "quiet" },
  ENDED: { word: "ended", tone: "quiet" },
  FAILED: { word: "failed", tone: "bad" },
};

/** What to call the state of a source: {word, tone}. */
export function condition(source) {
  const lost = source.state === "BACKOFF" || source.state === "CONNECTING";
  if (lost && source.connections > 0) return { word: "reconnecting", tone: "warn" };
  if (lost && Object.keys(source.failures).length > 0) return STATES.BACKOFF;
  return STATES[source.state] ?? QUIET;
}

/** "4 s", "3 min", "2 h", "5 d". */
export function duration(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

/** A number with few digits; "–" for what is not known. */
export function number(value, digits = 0) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

/** Milliseconds, or seconds where that reads better. */
export function latency(ms) {
  if (ms === null || ms === undefined) return "–";
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** The first letter large. */
export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Cause words as people write them. */
export function plain(word) {
  return word.replaceAll("_", " ");
}
