// One source: its picture, its state, its numbers.

import { send, sourcePath } from "./api.js";
import { BarChart, LineChart } from "./charts.js";
import { Screen } from "./pictures.js";
import { condition, duration, latency, number, plain, sentence } from "./words.js";

const OLD_SECONDS = 2; // from which a picture is not called live
const NOW_SECONDS = 1.5; // a class seen so recently is in the picture

export class Tile {
  constructor(source, { onRemove, onError }) {
    this.node = document.getElementById("tile").content.firstElementChild.cloneNode(true);
    this.find = (selector) => this.node.querySelector(selector);
    this.name = source.name;
    this.node.dataset.source = source.name;
    this.screen = new Screen(this.find("canvas"));
    this.fps = new LineChart(this.find(".fps"), ["one", "faint"]);
    this.latency = new LineChart(this.find(".latency"), ["one", "two", "three"]);
    this.drops = new BarChart(this.find(".drops"));
    this.dropped = null;
    this.label(onRemove, onError);
    this.update(source);
  }

  label(onRemove, onError) {
    const say = (selector, text) => {
      this.find(selector).title = text;
      this.find(selector).setAttribute("aria-label", `${text}: ${this.name}`);
    };
    this.find("h2").textContent = this.name;
    say(".snapshot", "Save this picture in full resolution");
    say(".enlarge", "Enlarge");
    say(".remove", "Remove");
    const link = this.find(".snapshot");
    link.href = `/snapshots/${encodeURIComponent(this.name)}.jpg`;
    link.download = `${this.name}.jpg`;
    this.find(".enlarge").addEventListener("click", () => {
      const large = this.node.classList.toggle("large");
      this.find(".enlarge").setAttribute("aria-pressed", large);
    });
    this.find(".remove").addEventListener("click", () => onRemove(this.name));
    this.find(".pause").addEventListener("click", () => {
      const paused = this.source.state !== "PAUSED";
      send("PATCH", sourcePath(this.name), { paused }).then((s) => this.update(s, false), onError);
    });
    this.say = say;
  }

  /** Take over a new state; a sample: one more point in the charts. */
  update(source, sample = true) {
    // An answer to a request carries no clock: the one of the last state goes on.
    const clock = source.clock ?? this.source?.clock + (performance.now() - this.heard) / 1000;
    this.source = { ...source, clock };
    this.heard = performance.now();
    const { word, tone } = condition(source);
    this.node.dataset.tone = tone;
    this.node.dataset.state = source.state;
    this.find(".word").textContent = word;
    const paused = source.state === "PAUSED";
    this.say(".pause", paused ? "Go on" : "Pause");
    this.find(".pause use").setAttribute("href", paused ? "#i-play" : "#i-pause");
    const size = source.size_hw ? `${source.size_hw[1]}×${source.size_hw[0]}` : "";
    this.find(".size").textContent = size;
    if (sample) this.sample(source);
    this.chips(source);
    this.refresh(true);
  }

  sample(source) {
    const ms = source.latency_ms ?? {};
    this.fps.add([source.fps, source.fps === null ? null : source.offered_fps]);
    this.latency.add([ms.p50 ?? null, ms.p95 ?? null, ms.p99 ?? null]);
    this.caption(".fps", number(source.fps, 1), this.offer(source));
    const tail = ms.p50 === undefined ? [] : [`p95 ${number(ms.p95)}`, `p99 ${number(ms.p99)}`];
    if (source.transit_ms) tail.push(`${latency(source.transit_ms.p50)} on the way here`);
    this.caption(".latency", latency(ms.p50), tail.join(" · "));
    const before = this.dropped ?? source.frames_dropped;
    const fresh = Object.entries(source.frames_dropped).map(([cause, count]) => [
      plain(cause),
      Math.max(0, count - (before[cause] ?? 0)),
    ]);
    this.dropped = source.frames_dropped;
    this.drops.add(Object.fromEntries(fresh));
    const total = Object.values(source.frames_dropped).reduce((a, b) => a + b, 0);
    const causes = Object.entries(source.frames_dropped)
      .sort((a, b) => b[1] - a[1])
      .map(([cause, count]) => `${plain(cause)} ${count}`);
    this.caption(".drops", String(total), causes.join(" · ") || "none");
  }

  offer(source) {
    return source.state === "RUNNING" && source.offered_fps ? `of ${number(source.offered_fps, 1)} offered` : "";
  }

  caption(selector, value, detail) {
    this.find(`${selector} b`).textContent = value;
    this.find(`${selector} small`).textContent = detail;
    this.find(`${selector} small`).title = detail;
  }

  chips(source) {
    const newest = Math.max(0, ...source.sightings.map((one) => one.wall_time));
    const live = source.state === "RUNNING" && source.picture_age_seconds < OLD_SECONDS;
    const now = live
      ? source.sightings.filter((one) => newest - one.wall_time < NOW_SECONDS)
      : [];
    const zones = Object.entries((live && source.zones) || {});
    this.find(".chips").replaceChildren(
      ...now.map((one) => chip(one.label, String(one.count))),
      ...zones.map(([zone, counts]) => zoneChip(zone, counts)),
    );
  }

  /** Tell how old the picture is; called a few times a second. `linked`: the server answers. */
  refresh(linked) {
    const age = this.screen.age();
    const slow = this.source.fps ? 3 / this.source.fps : 0;
    const running = this.source.state === "RUNNING" && linked;
    const old = !running || age === null || age > Math.max(OLD_SECONDS, slow);
    this.node.toggleAttribute("data-old", old);
    const picture = age === null ? "no picture yet" : `last picture ${duration(age)} ago`;
    const { word } = condition(this.source);
    const title = !linked ? "No connection" : running ? "Waiting for pictures" : sentence(word);
    const since = this.source.since && linked ? `for ${duration(this.since())}` : "";
    const cause = this.source.cause && linked ? plain(this.source.cause) : "";
    this.find(".notice strong").textContent = title;
    this.find(".notice span").textContent = [cause, running ? "" : since, picture]
      .filter(Boolean)
      .join(" · ");
    this.find(".notice").title = this.source.detail;
    const state = old ? `${title}, ${picture}` : word;
    this.find("canvas").setAttribute("aria-label", `${this.name}: ${state}`);
  }

  /** Seconds since the state changed, on the server's clock. */
  since() {
    const passed = (performance.now() - this.heard) / 1000;
    return this.source.clock - this.source.since + passed;
  }
}

/** A class and how many of it. */
export function chip(label, count) {
  const item = document.createElement("li");
  item.append(label, " ", strong(count));
  return item;
}

/** A zone and how many of each class are in it, such as "in yard: car 3, bus 0". */
function zoneChip(zone, counts) {
  const item = document.createElement("li");
  const classes = Object.entries(counts);
  if (classes.length === 0) classes.push(["nothing", ""]);
  item.append(`in ${zone}:`);
  classes.forEach(([label, count], index) => {
    const part = document.createElement("span");
    part.append(label, " ", strong(String(count)), index < classes.length - 1 ? "," : "");
    item.append(" ", part);
  });
  return item;
}

function strong(text) {
  const node = document.createElement("b");
  node.textContent = text;
  return node;
}
