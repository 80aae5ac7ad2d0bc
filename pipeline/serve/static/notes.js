// What is not as it should be with the whole line: one short sentence each.

import { latency, sentence } from "./words.js";

const list = document.getElementById("notes");
let shown = "";

/** Sentences with a tone, the worst first. */
function notes(state) {
  return budgetNotes(state.latency_budget);
}

function budgetNotes(budget) {
  if (!budget || budget.given_up === "nothing") return [];
  return [["warn", `${budget.given_up} given up to keep ${latency(budget.budget_ms)}`]];
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
      item.textContent = sentence(text);
      return item;
    }),
  );
}
