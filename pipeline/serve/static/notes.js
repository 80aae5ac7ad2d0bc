// What is not as it should be with the whole line: one short sentence each.

import { duration, latency, plain, sentence } from "./words.js";

const SILENT_SECONDS = 10; // as /ready has it
const DROPPED_SECONDS = 10; // so long a drop is talked about
const list = document.getElementById("notes");
let losses = new Map(); // of each output: how many, and when the last one was seen
let shown = "";

/** Sentences with a tone, the worst first. */
function notes(state) {
  return [
    ...engineNotes(state.engine),
    ...sinkNotes(state.sinks, state.wall_time),
    ...budgetNotes(state.latency_budget),
  ];
}

function engineNotes(engine) {
  if (!(engine.silent_seconds > SILENT_SECONDS)) return [];
  return [["bad", `The engine has not answered for ${duration(engine.silent_seconds)}`]];
}

function sinkNotes(sinks, now) {
  losses = new Map(sinks.map((sink) => [identity(sink), loss(sink, now)]));
  const failed = sinks.filter((sink) => sink.error);
  const dropping = sinks.filter(
    (sink) => !sink.error && now - losses.get(identity(sink)).at < DROPPED_SECONDS,
  );
  const causes = (sink) =>
    Object.entries(sink.frames_dropped).map(([cause, count]) => `${plain(cause)} ${count}`).join(" · ");
  return [
    ...failed.map((sink) => ["bad", `${sink.name} has failed: ${sink.error}`]),
    ...dropping.map((sink) => ["warn", `${sink.name} loses frames: ${causes(sink)}`]),
  ];
}

function identity(sink) {
  return JSON.stringify([sink.source, sink.name]);
}

function loss(sink, now) {
  const count = Object.values(sink.frames_dropped).reduce((a, b) => a + b, 0);
  const before = losses.get(identity(sink)) ?? { count, at: -Infinity };
  return { count, at: count > before.count ? now : before.at };
}

function budgetNotes(budget) {
  if (!budget || budget.given_up === "nothing") return [];
  return [["warn", `${sentence(budget.given_up)} given up to keep ${latency(budget.budget_ms)}`]];
}

/** Show what there is to say; nothing is touched while that stays the same. */
export function showNotes(state) {
  const found = notes(state);
  if (JSON.stringify(found) === shown) return;
  shown = JSON.stringify(found);
  list.hidden = found.length === 0;
  list.replaceChildren(
    ...found.map(([tone, text]) => {
      const item = document.createElement("li");
      item.dataset.tone = tone;
      item.textContent = text;
      return item;
    }),
  );
}
