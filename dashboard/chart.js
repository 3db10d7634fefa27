// Drawings: lines over time, sparks, one bar an endpoint. Each says the same in words and numbers.

import { draw, make, mark, write } from "./dom.js";
import { short } from "./format.js";

const WIDTH = 1000;
const HEIGHT = 100;

/** The next round number: 1, 2, 2.5 or 5 times a power of ten. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((round) => round >= value * 0.999);
}

/** Values to the path of a line, which breaks where there is none. */
function path(values, x, y) {
  let drawn = "";
  let down = false;
  values.forEach((value, index) => {
    if (value === null || value === undefined) {
      down = false;
      return;
    }
    const at = `${x(index).toFixed(1)} ${y(value).toFixed(2)}`;
    // A single point is a line as well, if a short one.
    const alone = !down && (values[index + 1] ?? null) === null;
    drawn += `${down ? "L" : "M"}${at}${alone ? "h1" : ""}`;
    down = true;
  });
  return drawn;
}

/** A chart of one or more lines over the same times. */
export class LineChart {
  /** `lines` are their names; `shown` writes a value, `least` is the smallest top of the scale. */
  constructor({ title, unit, lines, shown, least }) {
    Object.assign(this, { title, lines, shown, least, cursor: null, columns: [], step: 1 });
    this.values = lines.map(() => make("b"));
    const sample = (index) => draw("path", { d: "M0 4H18", class: `line-${index + 1}` });
    const entry = (name, index) =>
      make("span", {}, draw("svg", { viewBox: "0 0 18 8", "aria-hidden": "true" }, sample(index)), ` ${name} `, this.values[index]);
    const heading = make("span", { class: "title" }, title, " ", make("span", { class: "unit" }, unit));
    this.paths = lines.map((_, index) => draw("path", { class: `line-${index + 1}` }));
    this.area = draw("path", { class: "area" });
    this.line = draw("path", { class: "cursor" });
    const rules = [0, 50, 100].map((y) => draw("path", { d: `M0 ${y}H${WIDTH}`, class: "rule" }));
    const box = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" };
    this.empty = make("span", { class: "empty" }, "nothing yet");
    this.plot = make("div", {
      class: "plot", role: "img", tabindex: "0",
      onpointermove: (event) => this.point(event), onpointerleave: () => this.move(null),
      onkeydown: (event) => this.key(event), onblur: () => this.move(null),
    }, draw("svg", box, ...rules, this.area, ...this.paths, this.line), this.empty);
    this.marks = [make("span"), make("span"), make("span")];
    this.when = [make("span"), make("span")];
    this.element = make("figure", { class: "chart" },
      make("figcaption", {}, heading, make("span", { class: "legend" }, ...lines.map(entry))),
      make("div", { class: "frame" }, make("div", { class: "y", "aria-hidden": "true" }, ...this.marks), this.plot,
        make("div", { class: "x", "aria-hidden": "true" }, ...this.when)));
  }

  /** Shows these columns, one a line, oldest value first; `room` points fit, at `step` seconds each. */
  show(columns, room, step) {
    Object.assign(this, { columns, room, step });
    const known = columns.flat().filter((value) => value !== null);
    const top = ceiling(Math.max(this.least, ...known));
    const y = (value) => HEIGHT * (1 - value / top);
    columns.forEach((values, index) => mark(this.paths[index], "d", path(values, (i) => this.x(i), y)));
    const first = columns[0];
    const filled = columns.length === 1 && first.length > 1 && !first.includes(null);
    mark(this.area, "d", filled ? `${path(first, (i) => this.x(i), y)}V${HEIGHT}H${this.x(0)}Z` : "");
    this.empty.hidden = known.length > 0;
    [top, top / 2, 0].forEach((value, index) => write(this.marks[index], short(this.shown(value))));
    this.tell();
  }

  // The newest value is at the right edge, however many there are.
  x(index) {
    return WIDTH * (1 - (this.columns[0].length - 1 - index) / (this.room - 1));
  }

  point(event) {
    const box = this.plot.getBoundingClientRect();
    const back = Math.round((1 - (event.clientX - box.left) / box.width) * (this.room - 1));
    this.move(this.columns[0].length - 1 - back);
  }

  key(event) {
    const last = this.columns[0].length - 1;
    const at = this.cursor ?? last;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
    if (to === undefined && event.key !== "Escape") return;
    event.preventDefault();
    this.move(to ?? null);
  }

  move(index) {
    const last = (this.columns[0]?.length ?? 0) - 1;
    this.cursor = index === null || last < 0 ? null : Math.min(Math.max(index, 0), last);
    this.tell();
  }

  /** The values at the cursor, or the newest. */
  tell() {
    const last = (this.columns[0]?.length ?? 0) - 1;
    const at = Math.min(this.cursor ?? last, last);
    mark(this.line, "d", this.cursor === null ? "" : `M${this.x(at)} 0V${HEIGHT}`);
    const values = this.columns.map((column) => this.shown(column[at] ?? null));
    values.forEach((value, index) => write(this.values[index], value));
    const ago = (seconds) => (seconds >= 60 ? `${+(seconds / 60).toFixed(1)} min` : `${seconds} s`);
    write(this.when[0], `${ago(this.room * this.step)} ago`);
    const when = this.cursor === null || at === last ? "now" : `${ago((last - at) * this.step)} ago`;
    write(this.when[1], when === "now" ? "now" : `shown: ${when}`);
    const said = this.lines.map((name, index) => `${name} ${values[index]}`).join(", ");
    mark(this.plot, "aria-label", `${this.title}, ${when}: ${said}. Arrow keys go through the times.`);
  }
}

/** A line as small as a word. */
export class Spark {
  constructor() {
    this.path = draw("path");
    const box = { class: "spark", viewBox: "0 0 100 16", preserveAspectRatio: "none", "aria-hidden": "true" };
    this.element = draw("svg", box, this.path);
  }

  show(values, room) {
    const top = Math.max(...values.filter((value) => value !== null), 1e-9);
    const x = (index) => 100 * (1 - (values.length - 1 - index) / (room - 1));
    mark(this.path, "d", path(values, x, (value) => 15 - 14 * (value / top)));
  }
}

/** Small multiples: one bar an endpoint, always in the same order, so that a glance shows who differs. */
export class Strip {
  constructor({ title, shown, least, value }) {
    Object.assign(this, { shown, least, value, rows: [], pointed: null });
    this.detail = make("span", { class: "detail" });
    this.bars = draw("path", { class: "bars" });
    this.out = draw("path", { class: "out" });
    this.mean = draw("path", { class: "mean" });
    const box = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" };
    const base = draw("path", { class: "base", d: `M0 ${HEIGHT}H${WIDTH}` });
    const drawing = draw("svg", box, this.bars, this.out, base, this.mean);
    drawing.addEventListener("pointermove", (event) => this.point(event, drawing));
    drawing.addEventListener("pointerleave", () => {
      this.pointed = null;
      this.tell();
    });
    this.element = make("figure", { class: "strip" },
      make("figcaption", {}, make("span", { class: "title" }, title), this.detail), drawing);
  }

  show(rows) {
    this.rows = rows;
    // What is not ready has its last values at best, and no load: it would spoil the mean.
    const values = rows.map((row) => (row.ready ? (this.value(row) ?? null) : null));
    const known = values.filter((value) => value !== null);
    const top = Math.max(this.least, ...known);
    const pitch = WIDTH / Math.max(rows.length, 1);
    // Few endpoints must not become walls, and many need a gap all the same.
    const width = Math.min(pitch * 0.78, 60);
    let bars = "";
    let out = "";
    values.forEach((value, index) => {
      const x = (index * pitch + (pitch - width) / 2).toFixed(2);
      const w = width.toFixed(2);
      if (rows[index].down) out += `M${x} ${HEIGHT}v-12h${w}v12z`;
      else if (value > 0) bars += `M${x} ${HEIGHT}v${(-HEIGHT * Math.max(value / top, 0.02)).toFixed(2)}h${w}V${HEIGHT}z`;
    });
    mark(this.bars, "d", bars);
    mark(this.out, "d", out);
    const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
    mark(this.mean, "d", known.length > 0 ? `M0 ${(HEIGHT * (1 - mean / top)).toFixed(1)}H${WIDTH}` : "");
    this.all = known.length === 0 ? "not known"
      : `mean ${this.shown(mean)}, ${this.shown(Math.min(...known))} to ${this.shown(Math.max(...known))}`;
    this.tell();
  }

  point(event, drawing) {
    const box = drawing.getBoundingClientRect();
    this.pointed = Math.floor(((event.clientX - box.left) / box.width) * this.rows.length);
    this.tell();
  }

  tell() {
    const row = this.rows[this.pointed ?? -1];
    const said = (one) => (one.ready ? this.shown(this.value(one) ?? null) : one.word);
    write(this.detail, row ? `${row.endpoint}: ${said(row)}` : this.all);
  }
}
