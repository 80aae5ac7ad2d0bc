// Small charts of the last minute, one sample a second.

const SAMPLES = 60;
const WIDTH = 120;
const HEIGHT = 32;

function shape(kind, parent, className) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", kind);
  node.setAttribute("class", className);
  parent.append(node);
  return node;
}

function canvas(figure) {
  const svg = shape("svg", figure, "");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

/** A path through samples; a gap where there is none. */
function through(samples, top) {
  let path = "";
  let pen = "M";
  samples.forEach((value, index) => {
    if (value === null) {
      pen = "M";
      return;
    }
    const x = WIDTH - (samples.length - 1 - index) * (WIDTH / (SAMPLES - 1));
    path += `${pen}${x.toFixed(1)} ${(HEIGHT - 2 - (HEIGHT - 5) * (value / top)).toFixed(1)}`;
    pen = "L";
  });
  return path;
}

/** Lines of several series, such as percentiles; the first one is filled below. */
export class LineChart {
  constructor(figure, classNames) {
    const svg = canvas(figure);
    this.area = shape("path", svg, "area");
    this.lines = classNames.map((name) => shape("path", svg, name));
    this.series = classNames.map(() => []);
  }

  /** Add one sample to each series; null: not known. */
  add(values) {
    this.series.forEach((samples, index) => {
      samples.push(values[index] ?? null);
      if (samples.length > SAMPLES) samples.shift();
    });
    const top = Math.max(1e-9, ...this.series.flat().filter((value) => value !== null)) * 1.08;
    this.lines.forEach((line, index) => line.setAttribute("d", through(this.series[index], top)));
    const first = this.series[0];
    const whole = first.length > 1 && first.every((value) => value !== null);
    const left = WIDTH - (first.length - 1) * (WIDTH / (SAMPLES - 1));
    const floor = `L${WIDTH} ${HEIGHT}L${left.toFixed(1)} ${HEIGHT}Z`;
    this.area.setAttribute("d", whole ? through(first, top) + floor : "");
  }
}

/** Bars of events per second, stacked by cause. */
export class BarChart {
  constructor(figure) {
    this.svg = canvas(figure);
    this.samples = [];
    this.causes = [];
  }

  /** Add one second: events by cause. */
  add(events) {
    for (const cause of Object.keys(events)) {
      if (!this.causes.includes(cause)) this.causes.push(cause);
    }
    this.samples.push(events);
    if (this.samples.length > SAMPLES) this.samples.shift();
    const sums = this.samples.map((one) => Object.values(one).reduce((a, b) => a + b, 0));
    const top = Math.max(1, ...sums);
    this.svg.replaceChildren();
    this.samples.forEach((one, index) => this.draw(one, index, top));
  }

  draw(events, index, top) {
    const step = WIDTH / SAMPLES;
    let floor = HEIGHT;
    this.causes.forEach((cause, number) => {
      if (!events[cause]) return;
      const height = (HEIGHT - 3) * (events[cause] / top);
      floor -= height;
      const bar = shape("rect", this.svg, `cause-${number % 4}`);
      bar.setAttribute("x", WIDTH - (this.samples.length - index) * step);
      bar.setAttribute("y", floor);
      bar.setAttribute("width", step);
      bar.setAttribute("height", height);
    });
  }
}
