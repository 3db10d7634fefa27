// Where the last requests went, and why: the costs of every candidate, term by term.

import { byId, make, mark, write } from "./dom.js";
import { count, time } from "./format.js";
import { Table, number, text } from "./table.js";

/** Decisions kept by the page; the gateway has more at /decisions. */
const KEPT_MAX = 60;
const COLOURS = 8;
/** Where chance has a say besides equal costs. */
const CHANCE = {
  predicted: "Costs within 2 % of the least, or 5 ms if that is more, count as equal and chance chooses among them; now and then an idle endpoint is tried.",
};

export class Decisions {
  constructor() {
    this.kept = [];
    this.chosen = null;
    this.table = new Table(byId("decisions-table"), {
      columns: this.columns(), key: keyOf,
      none: "No request was placed yet. Each that is appears here, with the costs that settled where it went.",
    });
    this.explanation = new Explanation(byId("decision"));
    this.table.decorate = (row, decision) => mark(row, "class", keyOf(decision) === this.chosen ? "chosen" : null);
    byId("decisions-follow").addEventListener("change", () => this.draw());
    this.load();
  }

  columns() {
    const when = (cell, decision) => {
      if (!cell.firstChild) cell.append(make("button", { class: "pick", type: "button" }));
      cell.firstChild.onclick = () => this.choose(decision);
      write(cell.firstChild, clockOf(decision));
    };
    return [
      { head: "Time", cell: when },
      text("Model", (one) => one.model ?? "–", { sort: null }),
      text("Endpoint", (one) => one.endpoint, { sort: null }),
      text("Reason", (one) => one.reason, { sort: null, title: "What settled it" }),
      number("Waited", (one) => (one.queue_ms ?? null) === null ? null : one.queue_ms / 1000, time, { sort: null, title: "From arrival to the pick" }),
      number("Cost", (one) => costOf(one), (cost) => (cost === null ? "–" : cost), { sort: null, title: "Of the endpoint chosen" }),
    ];
  }

  /** What was decided before the page was opened. */
  async load() {
    try {
      const answer = await fetch(`decisions?limit=${KEPT_MAX}`);
      if (answer.ok) this.take(await answer.json());
    } catch {
      // The stream brings the next ones.
    }
  }

  tell(tick) {
    this.take(tick.decisions);
  }

  take(decisions) {
    const known = new Set(this.kept.map(keyOf));
    const fresh = decisions.filter((one) => !known.has(keyOf(one)));
    if (fresh.length === 0 && this.drawn) return;
    this.drawn = true;
    this.kept = [...fresh, ...this.kept].sort((a, b) => (b.time ?? "").localeCompare(a.time ?? "")).slice(0, KEPT_MAX);
    this.draw();
  }

  choose(decision) {
    byId("decisions-follow").checked = false;
    this.chosen = keyOf(decision);
    this.draw();
    this.explanation.toTop();
  }

  draw() {
    const newest = this.kept[0];
    const found = this.kept.find((one) => keyOf(one) === this.chosen);
    if (newest && (byId("decisions-follow").checked || !found)) this.chosen = keyOf(newest);
    this.table.show(this.kept);
    this.explanation.show(this.kept.find((one) => keyOf(one) === this.chosen));
  }
}

const keyOf = (decision) => `${decision.time} ${decision.request_id} ${decision.endpoint}`;
const clockOf = ({ time }) => (time ? new Date(time).toLocaleTimeString("en-GB") : "–");
const shownCost = (decision, cost) => (decision.cost_unit === "seconds" ? time(cost) : count(cost));

function costOf(decision) {
  const chosen = decision.candidates.find(({ endpoint }) => endpoint === decision.endpoint);
  return chosen ? shownCost(decision, chosen.cost) : null;
}

/** One decision and its candidates. Only what is in its parts is replaced: where it is scrolled to, and the focus, stay. */
class Explanation {
  constructor(place) {
    this.facts = make("dl", { class: "decision-facts" });
    this.note = make("p", { class: "muted" });
    this.legend = make("ul", { class: "terms-legend", "aria-label": "Terms" });
    this.heads = make("tr");
    this.body = make("tbody");
    const table = make("table", { class: "data" }, make("caption", { class: "hidden" }, "Candidates, the chosen one first"),
      make("thead", {}, this.heads), this.body);
    this.scroll = make("div", { class: "scroll short", tabindex: "0", role: "region", "aria-label": "Candidates" }, table);
    place.append(this.facts, this.note, this.legend, this.scroll);
  }

  toTop() {
    this.scroll.scrollTop = 0;
  }

  show(decision) {
    const key = decision ? keyOf(decision) : "";
    if (key === this.shown) return;
    this.shown = key;
    const { heads, note, legend, rows } = decision?.candidates.length ? costs(decision) : nothing(decision);
    this.facts.replaceChildren(...(decision ? facts(decision) : []));
    write(this.note, note);
    this.legend.replaceChildren(...legend);
    this.heads.replaceChildren(...heads);
    this.body.replaceChildren(...rows);
  }
}

function facts(decision) {
  const pool = decision.namespace === "default" ? decision.pool : `${decision.namespace}/${decision.pool}`;
  const waited = (decision.queue_ms ?? null) === null ? "–" : time(decision.queue_ms / 1000);
  const pairs = {
    Request: decision.request_id, Model: decision.model ?? "–", Pool: pool, Policy: decision.policy,
    Reason: decision.reason, Waited: waited, Sent: `to ${decision.endpoint}`,
  };
  return Object.entries(pairs).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
}

function nothing(decision) {
  const said = decision ? `The policy ${decision.policy} works out no costs.` : "The costs of a decision's candidates appear here.";
  return { heads: [], note: "", legend: [], rows: [make("tr", {}, make("td", { class: "none" }, said))] };
}

/** A bar and a row of numbers for each candidate. */
function costs(decision) {
  const { candidates } = decision;
  const names = [...new Set(candidates.flatMap(({ terms }) => Object.keys(terms)))].sort();
  // Terms that are zero for everyone say nothing here.
  const said = names.filter((name) => candidates.some(({ terms }) => Math.abs(terms[name] ?? 0) > 0));
  const terms = said.length ? said : names;
  const most = Math.max(...candidates.map((one) => sum(one, terms)), 1e-12);
  // By its place among all of them: a term has one colour, whichever others are shown.
  const colour = (name) => `t${(names.indexOf(name) % COLOURS) + 1}`;
  const legend = terms.map((name) => make("li", {}, make("i", { class: colour(name), "aria-hidden": "true" }), name.replaceAll("_", " ")));
  const row = (one) => {
    const isChosen = one.endpoint === decision.endpoint;
    const name = make("th", { scope: "row" }, one.endpoint, isChosen ? make("b", {}, " ← chosen") : null);
    const cells = terms.map((term) => make("td", { class: "number" }, shownCost(decision, one.terms[term] ?? 0)));
    const bar = make("td", { class: "bar-cell", "aria-hidden": "true" }, stack(one, terms, most, colour));
    return make("tr", { class: isChosen ? "chosen" : null }, name, bar, make("td", { class: "number" }, make("b", {}, shownCost(decision, one.cost))), ...cells);
  };
  const titles = ["Candidate", "", "Cost", ...terms.map((name) => name.replaceAll("_", " "))];
  const heads = titles.map((title, index) => (index === 1 ? make("td") : make("th", { scope: "col", class: index > 1 ? "number" : null }, title)));
  const chosen = candidates.filter(({ endpoint }) => endpoint === decision.endpoint);
  const others = candidates.filter((one) => !chosen.includes(one));
  return { heads, note: noteOf(decision), legend, rows: [...chosen, ...others].map(row) };
}

/** What the costs are in, in which order, and why the chosen one need not have the least. */
function noteOf({ cost_unit: unit, policy, candidates }) {
  const cost = unit === "seconds" ? "Cost in time: the smaller, the better." : "Cost without a unit: the smaller, the better.";
  if (candidates.length === 1) return cost;
  return `${cost} ${candidates.length} candidates: the chosen one, then the others, cheapest first. ${CHANCE[policy] ?? ""}`;
}

const sum = ({ terms }, names) => names.reduce((all, name) => all + Math.max(terms[name] ?? 0, 0), 0);

function stack(candidate, terms, most, colour) {
  const bar = make("div", { class: "stack" });
  for (const name of terms) {
    const value = Math.max(candidate.terms[name] ?? 0, 0);
    if (value === 0) continue;
    const part = make("span", { class: colour(name), title: `${name.replaceAll("_", " ")}` });
    part.style.width = `${((value / most) * 100).toFixed(2)}%`;
    bar.append(part);
  }
  return bar;
}
