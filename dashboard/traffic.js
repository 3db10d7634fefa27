// Traffic over time, of everything, a pool or a model.

import { LineChart } from "./chart.js";
import { byId, make, mark, write } from "./dom.js";
import { count, rate, time } from "./format.js";

const ROOM = { seconds: 300, steps: 240 };
/** Rates are drawn as means of so many seconds, and told as means of more: of single ones they would flicker. */
const LINE_SECONDS = 5;
const TILE_SECONDS = 10;

const quantile = (index) => (times) => (times ? times[index] : null);
const CHARTS = [
  { title: "Requests", unit: "per second", shown: rate, least: 1, lines: { ended: (c) => c.requests }, rates: true },
  {
    title: "Tokens", unit: "per second", shown: rate, least: 10, rates: true,
    lines: { prompt: (c) => c.prompt_tokens, answer: (c) => c.completion_tokens },
  },
  { title: "Time to first token", unit: "TTFT", shown: time, least: 0.01, lines: quantiles("ttft") },
  { title: "Time per output token", unit: "TPOT", shown: time, least: 0.01, lines: quantiles("tpot") },
  {
    title: "Load", unit: "requests", shown: count, least: 1,
    lines: { "in flight": (c) => c.in_flight, "waiting in the gateway": (c) => c.queued },
  },
  {
    title: "Refused, tried again, broken off", unit: "per second", shown: rate, least: 1, rates: true,
    lines: { refusals: (c) => c.refusals, retries: (c) => c.retries, "broken off": (c) => c.broken },
  },
];

function quantiles(field) {
  const lines = {};
  ["p50", "p90", "p99"].forEach((name, index) => {
    lines[name] = (columns) => columns[field].map(quantile(index));
  });
  return lines;
}

/** Each value as the mean of those up to it. */
function means(column) {
  return column.map((value, index) => {
    const some = column.slice(Math.max(0, index - LINE_SECONDS + 1), index + 1).filter((one) => one !== null);
    return value === null ? null : some.reduce((sum, one) => sum + one, 0) / some.length;
  });
}

export class Traffic {
  constructor() {
    this.scope = { of: "all" };
    this.history = null;
    this.asking = null;
    this.charts = CHARTS.map((chart) => new LineChart({ ...chart, lines: Object.keys(chart.lines) }));
    byId("charts").append(...this.charts.map((chart) => chart.element));
    this.tiles = new Tiles(byId("tiles"));
    byId("scope").addEventListener("change", (event) => this.choose(JSON.parse(event.target.value)));
    for (const radio of document.getElementsByName("range")) radio.addEventListener("change", () => this.draw());
  }

  /** Shows another pool or model. */
  choose(scope) {
    this.scope = scope;
    const option = [...byId("scope").options].find(({ value }) => value === JSON.stringify(scope));
    if (option) option.selected = true;
    this.history = null;
    this.ask();
  }

  /** Asks for the points up to now, once at a time: an answer may take longer than the next tick. */
  async ask() {
    const asked = JSON.stringify(this.scope);
    if (this.asking === asked) return;
    this.asking = asked;
    try {
      const answer = await fetch(`history?${new URLSearchParams(this.scope)}`);
      if (!answer.ok || asked !== JSON.stringify(this.scope)) return;
      this.history = await answer.json();
      this.draw();
    } catch {
      // The stream says that the gateway is gone, and its next tick asks again.
    } finally {
      if (this.asking === asked) this.asking = null;
    }
  }

  tell(tick) {
    this.offer(tick.series);
    const own = tick.series.find(({ of, name }) => of === this.scope.of && name === this.scope.name);
    this.take(tick.sequence, own);
    this.tiles.tell(tick, this.scope, own, this.history);
    this.draw();
  }

  take(sequence, own) {
    if (!own) return;
    const newest = this.history?.sequence;
    // After a pause or another start, or when the points of longer steps are due, the gateway knows better.
    if (newest === undefined || sequence < newest || sequence > newest + 1 || sequence % 15 === 0) this.ask();
    if (sequence !== newest + 1) return;
    this.history.sequence = sequence;
    for (const [key, value] of Object.entries(own.point)) {
      const column = this.history.seconds[key];
      column.push(value);
      if (column.length > ROOM.seconds) column.shift();
    }
  }

  draw() {
    if (this.history === null) return;
    const range = document.querySelector("input[name=range]:checked").value;
    const step = range === "seconds" ? 1 : this.history.step_seconds;
    CHARTS.forEach((chart, index) => {
      const smooth = chart.rates && range === "seconds" ? means : (column) => column;
      const columns = Object.values(chart.lines).map((line) => smooth(line(this.history[range])));
      this.charts[index].show(columns, ROOM[range], step);
    });
  }

  /** The series there are, to choose from. */
  offer(series) {
    const names = JSON.stringify(series.map(({ of, name }) => [of, name]));
    if (names === this.offered) return;
    this.offered = names;
    const group = (label, kind) => {
      const of = series.filter((one) => one.of === kind);
      const option = ({ name }) => make("option", { value: JSON.stringify({ of: kind, name }) }, name);
      return of.length ? make("optgroup", { label }, ...of.map(option)) : null;
    };
    const chosen = JSON.stringify(this.scope);
    const all = make("option", { value: JSON.stringify({ of: "all" }) }, "everything");
    byId("scope").replaceChildren(...[all, group("Pools", "pool"), group("Models", "model")].filter(Boolean));
    byId("scope").value = chosen;
  }
}

/** Numbers at a glance. */
class Tiles {
  constructor(list) {
    const titles = ["Requests", "Prompt tokens", "Answer tokens", "TTFT p50", "TPOT p50", "In flight", "Endpoints", "Refusals"];
    this.tiles = titles.map((title) => {
      const tile = { value: make("dd"), detail: make("dd", { class: "detail" }) };
      tile.element = make("div", { class: "tile" }, make("dt", {}, title), tile.value, tile.detail);
      return tile;
    });
    list.append(...this.tiles.map(({ element }) => element));
  }

  tell(tick, scope, own, history) {
    const mean = (key) => {
      const column = history?.seconds[key].slice(-TILE_SECONDS).filter((value) => value !== null) ?? [];
      return column.length ? column.reduce((sum, value) => sum + value, 0) / column.length : null;
    };
    const perSecond = (key) => (mean(key) === null ? "–" : `${rate(mean(key))}/s`);
    const times = (quantiles) => [time(quantiles?.[0] ?? null), `p90 ${time(quantiles?.[1] ?? null)}, p99 ${time(quantiles?.[2] ?? null)}`];
    const total = own?.total;
    const [ready, all] = readiness(tick.pools);
    const isOurs = ({ outcome, pool }) => outcome === "refusal" && (scope.of === "all" || pool === scope.name);
    const lately = tick.outcomes.filter(isOurs).reduce((sum, one) => sum + one.five_minutes, 0);
    const notByModel = "not counted by model";
    const refusals = scope.of === "model" ? ["–", notByModel] : [count(lately), `last 5 min; ${count(total?.refusals ?? null)} since the start`, lately > 0];
    const queued = own?.point.queued;
    this.set([
      [perSecond("requests"), `${count(total?.requests ?? null)} since the start`],
      [perSecond("prompt_tokens"), `${count(total?.prompt_tokens ?? null)} since the start`],
      [perSecond("completion_tokens"), `${count(total?.completion_tokens ?? null)} since the start`],
      times(own?.minute.ttft),
      times(own?.minute.tpot),
      [count(own?.point.in_flight ?? null), queued === null || queued === undefined ? notByModel : `${count(queued)} waiting in the gateway`],
      [`${ready} of ${all}`, ready === all ? "ready" : `ready, ${all - ready} not`, ready < all || all === 0],
      refusals,
    ]);
  }

  set(values) {
    values.forEach(([value, detail, alert], index) => {
      write(this.tiles[index].value, value);
      write(this.tiles[index].detail, detail);
      mark(this.tiles[index].element, "class", alert ? "tile alert" : "tile");
    });
  }
}

/** How many endpoints are ready, and how many there are: each once, whatever the number of its pools. */
export function readiness(pools) {
  const endpoints = new Map(pools.flatMap((pool) => pool.endpoints).map((one) => [one.endpoint, one]));
  const ready = [...endpoints.values()].filter(({ health, out }) => health === "ready" && !out);
  return [ready.length, endpoints.size];
}
