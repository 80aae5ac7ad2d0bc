// The page: listens to the server, and keeps a tile for every source.

import { send, sourcePath } from "./api.js";
import { showNotes } from "./notes.js";
import { DetectionPanel, MachinePanel, showSightings } from "./panels.js";
import { readPictures } from "./pictures.js";
import { Tile } from "./tile.js";
import { number } from "./words.js";

const SILENT_SECONDS = 4; // without a word from the server it counts as gone
const byId = (id) => document.getElementById(id);

const tiles = new Map();
const detection = new DetectionPanel();
const machine = new MachinePanel();
const early = new Map(); // pictures of sources that the page has not heard of yet
let heard = 0;

function linked() {
  return heard > 0 && performance.now() - heard < SILENT_SECONDS * 1000;
}

function say(word, tone) {
  if (byId("link").textContent === word) return; // it is read aloud when it changes
  byId("link").textContent = word;
  byId("link").dataset.tone = tone;
}

function update(state) {
  heard = performance.now();
  say("connected", "good");
  const names = new Set(state.sources.map((source) => source.name));
  for (const [name, tile] of tiles) {
    if (names.has(name)) continue;
    tile.node.remove();
    tiles.delete(name);
  }
  for (const source of state.sources) place({ ...source, clock: state.wall_time });
  byId("empty").hidden = tiles.size > 0;
  summarise(state);
  showNotes(state);
  detection.update(state.engine);
  machine.update(state);
  showSightings(state);
}

function place(source) {
  const tile = tiles.get(source.name);
  if (tile) {
    tile.update(source);
    return;
  }
  const fresh = new Tile(source, { onRemove: askToRemove, onError: (error) => say(error.message, "bad") });
  tiles.set(source.name, fresh);
  byId("grid").append(fresh.node);
  if (early.has(source.name)) fresh.screen.show(...early.get(source.name));
  early.delete(source.name);
}

function show(head, jpeg) {
  const tile = tiles.get(head.source);
  if (tile) tile.screen.show(head, jpeg);
  else if (early.size < 100) early.set(head.source, [head, jpeg]);
}

function summarise(state) {
  const live = state.sources.filter((source) => source.state === "RUNNING");
  const fps = live.reduce((sum, source) => sum + (source.fps ?? 0), 0);
  const many = state.sources.length;
  byId("summary").textContent = `${live.length} of ${many} live · ${number(fps, 1)} fps together`;
  document.title = `${live.length}/${many} live · boxstream`;
}

// What the server says and shows; only while somebody can see it.

let stop = null;

function listen() {
  const events = new EventSource("/api/events");
  const pictures = new AbortController();
  events.addEventListener("state", (event) => update(JSON.parse(event.data)));
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 3000);
  });
  watch(pictures.signal);
  return () => {
    events.close();
    pictures.abort();
  };
}

async function watch(signal) {
  while (!signal.aborted) {
    try {
      await readPictures(show, signal);
    } catch {
      // Lost; the state of things says so on the page.
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

function attend() {
  if (document.hidden && stop) {
    stop();
    stop = null;
  } else if (!document.hidden && !stop) {
    stop = listen();
  }
}

document.addEventListener("visibilitychange", attend);
attend();

setInterval(() => {
  if (heard && !linked() && !document.hidden) say("connection lost, trying again", "bad");
  for (const tile of tiles.values()) tile.refresh(linked());
}, 250);

// Adding and removing.

byId("open-add").addEventListener("click", () => {
  byId("add-error").textContent = "";
  byId("add").showModal();
});
byId("add-cancel").addEventListener("click", () => byId("add").close());
byId("add-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const wish = { url: byId("add-url").value.trim() };
  const name = byId("add-name").value.trim();
  if (name) wish.name = name;
  try {
    await send("POST", "/api/sources", wish);
    byId("add-form").reset();
    byId("add").close();
  } catch (error) {
    byId("add-error").textContent = error.message;
  }
});

function askToRemove(name) {
  const dialog = byId("remove");
  byId("remove-name").textContent = name;
  dialog.returnValue = "no";
  dialog.showModal();
  dialog.onclose = () => {
    if (dialog.returnValue === "yes") {
      send("DELETE", sourcePath(name)).catch((error) => say(error.message, "bad"));
    }
  };
}
