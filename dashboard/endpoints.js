// Every endpoint: what it said of itself, what this gateway has on it, and whether it gets requests.

import { Strip } from "./chart.js";
import { badge, byId, make, mark, write } from "./dom.js";
import { count, percent, poolLabel, rate, span, time } from "./format.js";
import { Table, number, text } from "./table.js";

/** Rows shown before one asks for all. */
const FOLD = 20;
/** Tokens per second are over so many ticks. */
const RATE_TICKS = 10;
/** KV caches that are fuller are marked: preemptions are near. */
const KV_HIGH = 0.9;
/** Older readings are not used by any policy. */
const OLD_SECONDS = 5;

/** The kinds of conditions, the worst first. */
const KINDS = ["bad", "warning", "idle", "good"];

/** An endpoint's condition: the kind of its sign, and a word. */
function condition({ health, out, scrape_age_seconds: age }) {
  if (health === "unready") return ["bad", "not ready"];
  if (out) return ["bad", out];
  if (health !== "ready") return ["idle", "not asked yet"];
  if (age === undefined) return ["warning", "no metrics"];
  return age > OLD_SECONDS ? ["warning", "stale metrics"] : ["good", "ready"];
}

const STRIPS = [
  { title: "KV use", shown: percent, least: 1, value: (row) => row.kv_usage },
  { title: "Waiting", shown: count, least: 1, value: (row) => row.waiting },
  { title: "In flight", shown: count, least: 1, value: (row) => row.in_flight },
  { title: "TTFT expected", shown: time, least: 0.05, value: (row) => row.predicted_ttft_seconds },
];

export class Endpoints {
  constructor() {
    this.rows = [];
    this.before = new Map();
    this.strips = STRIPS.map((strip) => new Strip(strip));
    byId("strips").append(...this.strips.map((strip) => strip.element));
    this.table = new Table(byId("endpoints-table"), {
      columns: columns(), key: (row) => row.key, fold: FOLD, more: byId("endpoints-more"),
      sorted: { column: "State", down: false }, none: () => this.none(),
    });
    for (const id of ["endpoints-filter", "endpoints-pool", "endpoints-trouble"]) {
      byId(id).addEventListener("input", () => this.draw());
    }
  }

  tell(tick) {
    this.rows = tick.pools.flatMap((pool) => pool.endpoints.map((one) => this.row(pool, one)));
    this.remember(tick.sequence);
    this.offer(tick.pools.map(poolLabel));
    this.summarise();
    this.draw();
  }

  row(pool, endpoint) {
    const label = poolLabel(pool);
    const [kind, word] = condition(endpoint);
    const is = { down: kind === "bad", ready: kind === "good" || kind === "warning", trouble: kind === "bad" || kind === "warning" };
    return { ...endpoint, pool: label, key: `${label} ${endpoint.endpoint}`, kind, word, ...is, tokens: this.rate(endpoint) };
  }

  /** Tokens generated per second, since a few ticks ago. */
  rate({ endpoint, generation_tokens_total: now }) {
    const before = this.before.get(endpoint)?.[0];
    if (now === undefined || !before || performance.now() - before.at < 900) return null;
    // A restarted server counts from zero.
    return now < before.tokens ? null : ((now - before.tokens) * 1000) / (performance.now() - before.at);
  }

  remember(sequence) {
    if (sequence === this.sequence) return;
    this.sequence = sequence;
    const at = performance.now();
    const kept = new Map();
    for (const { endpoint, generation_tokens_total: tokens } of this.rows) {
      if (tokens === undefined || kept.has(endpoint)) continue;
      const readings = (this.before.get(endpoint) ?? []).filter((one) => one.tokens <= tokens);
      kept.set(endpoint, [...readings, { at, tokens }].slice(-RATE_TICKS));
    }
    this.before = kept;
  }

  offer(labels) {
    const select = byId("endpoints-pool");
    const offered = JSON.stringify(labels);
    if (offered === this.offered) return;
    this.offered = offered;
    const chosen = select.value;
    select.replaceChildren(make("option", { value: "" }, "all"), ...labels.map((label) => make("option", { value: label }, label)));
    select.value = labels.includes(chosen) ? chosen : "";
  }

  summarise() {
    const words = new Map();
    const seen = new Map(this.rows.map((row) => [row.endpoint, row]));
    for (const { word } of seen.values()) words.set(word, (words.get(word) ?? 0) + 1);
    const parts = [...words].sort(([, a], [, b]) => b - a).map(([word, how]) => `${how} ${word}`);
    write(byId("endpoints-summary"), seen.size === 0 ? "" : `${seen.size}: ${parts.join(", ")}`);
  }

  draw() {
    const wanted = byId("endpoints-filter").value.trim().toLowerCase();
    const pool = byId("endpoints-pool").value;
    const onlyTrouble = byId("endpoints-trouble").checked;
    const matches = (row) => {
      const words = [row.endpoint, row.workload, row.word, ...(row.running_adapters ?? [])];
      return (!pool || row.pool === pool) && (!onlyTrouble || row.trouble)
        && (!wanted || words.some((word) => word.toLowerCase().includes(wanted)));
    };
    const rows = this.rows.filter(matches);
    this.table.show(rows);
    for (const strip of this.strips) strip.show(rows);
  }

  none() {
    if (this.rows.length === 0) return "No pool has an endpoint. Add WorkloadEntries whose labels a pool's selector matches, or start the gateway with --endpoint.";
    return byId("endpoints-trouble").checked ? "None of them is in trouble." : "No endpoint matches the filter.";
  }
}

function columns() {
  const name = (cell, { endpoint, workload }) => {
    if (cell.dataset.of === `${endpoint} ${workload}`) return;
    cell.dataset.of = `${endpoint} ${workload}`;
    const other = workload && workload !== endpoint ? make("span", { class: "muted" }, ` ${workload}`) : null;
    cell.replaceChildren(...[endpoint, other].filter(Boolean));
  };
  return [
    { head: "Endpoint", sort: (row) => row.endpoint, cell: name },
    text("Pool", (row) => row.pool),
    { head: "State", sort: (row) => `${KINDS.indexOf(row.kind)} ${row.word} ${row.endpoint}`, cell: state },
    number("In flight", (row) => row.in_flight, count, { title: "Requests of this gateway that are not finished" }),
    number("Running", (row) => row.running, count, { title: "Requests in the engine's batch, as last scraped" }),
    number("Waiting", (row) => row.waiting, count, { title: "Requests in the engine's queue, as last scraped" }),
    { head: "KV use", number: true, sort: (row) => row.kv_usage, cell: meter },
    number("Prefill pending", (row) => row.prefill_tokens_pending, count, { title: "Prompt tokens sent that have no first token yet, estimated" }),
    number("TTFT expected", (row) => row.predicted_ttft_seconds, time, { title: "Mean of the latest times to first token" }),
    number("Tokens/s", (row) => row.tokens, rate, { title: "Tokens generated, over the last seconds" }),
    { head: "Adapters", sort: (row) => row.running_adapters?.length, cell: adapters, title: "Adapters with a request in the batch, of as many as fit" },
    { head: "Scraped", number: true, sort: (row) => row.scrape_age_seconds, cell: age, title: "Time since the endpoint last told its load" },
  ];
}

function state(cell, { kind, word }) {
  if (cell.dataset.of === word) return;
  cell.dataset.of = word;
  cell.replaceChildren(badge(kind, word));
}

function meter(cell, { kv_usage: use }) {
  if (use === undefined) {
    cell.replaceChildren("–");
    return;
  }
  if (!cell.firstElementChild) {
    const track = make("span", { class: "track", "aria-hidden": "true" }, make("span", { class: "fill" }));
    cell.replaceChildren(make("span", { class: "meter" }, track, make("span", { class: "value" })));
  }
  const [track, value] = cell.firstElementChild.children;
  track.firstElementChild.style.width = `${(Math.min(use, 1) * 100).toFixed(1)}%`;
  mark(cell.firstElementChild, "class", use >= KV_HIGH ? "meter high" : "meter");
  write(value, percent(use));
}

function adapters(cell, { running_adapters: names, adapters_max: most }) {
  const some = names ?? [];
  const of = most === undefined ? "" : ` of ${most}`;
  write(cell, names === undefined && most === undefined ? "–" : `${some.length}${of}${some.length ? `: ${some.join(", ")}` : ""}`);
  mark(cell, "title", some.length ? some.join("\n") : null);
  mark(cell, "class", "adapters");
}

function age(cell, { scrape_age_seconds: seconds }) {
  const old = seconds === undefined || seconds > OLD_SECONDS;
  write(cell, seconds === undefined ? "never" : seconds < 60 ? `${seconds.toFixed(1)} s ago` : `${span(seconds)} ago`);
  mark(cell, "class", old ? "number badge warning" : "number");
}
