// Pools and models: requests, tokens and times, now and over the last hour.

import { Spark } from "./chart.js";
import { byId, make, write } from "./dom.js";
import { count, poolLabel, rate, time } from "./format.js";
import { Table, number } from "./table.js";

/** The last hour's requests are asked for again as often as they get a new point. */
const OVERVIEW_MS = 15_000;
const OVERVIEW_ROOM = 240;
/** Models shown before one asks for all. */
const FOLD = 16;

export class SeriesTable {
  /** `choose(scope)` is called when one is to be shown in the charts. */
  constructor(choose) {
    this.choose = choose;
    this.requests = new Map();
    this.asked = 0;
    this.tables = { pool: this.table("Pools"), model: this.table("Models", byId("series-more")) };
  }

  table(title, more) {
    const table = byId("series-table");
    const columns = this.columns();
    const head = make("th", { class: "group-head", colspan: columns.length, scope: "colgroup" }, title);
    table.append(make("tbody", {}, make("tr", {}, head)));
    return new Table(table, {
      columns, heads: false, key: ({ name }) => name, fold: FOLD, more,
      sorted: { column: "requests", down: true }, none: "None yet.",
    });
  }

  columns() {
    const times = (of) => [0, 1, 2].map((index) => number("", (row) => of(row)?.[index], time, { group: index === 0 }));
    return [
      { head: "name", cell: (cell, row) => this.name(cell, row) },
      number("", (row) => row.minute.requests, rate, { group: true }),
      { head: "", cell: (cell, row) => this.spark(cell, row) },
      number("", (row) => row.minute.prompt_tokens, rate, { group: true }),
      number("", (row) => row.minute.completion_tokens, rate),
      ...times((row) => row.minute.ttft), ...times((row) => row.hour.ttft),
      ...times((row) => row.minute.tpot), ...times((row) => row.hour.tpot),
      number("requests", (row) => row.total.requests, count, { group: true }),
      number("", (row) => row.total.prompt_tokens, count),
      number("", (row) => row.total.completion_tokens, count),
    ];
  }

  name(cell, { of, name }) {
    if (cell.firstChild) return;
    const show = () => {
      this.choose({ of, name });
      byId("traffic").scrollIntoView();
    };
    cell.append(make("button", { class: "pick", type: "button", title: "Show in the charts", onclick: show }, name));
  }

  spark(cell, { of, name }) {
    if (!cell.firstChild) {
      cell.drawing = new Spark();
      cell.append(cell.drawing.element);
    }
    cell.drawing.show(this.requests.get(`${of} ${name}`) ?? [], OVERVIEW_ROOM);
  }

  tell(tick) {
    for (const [of, table] of Object.entries(this.tables)) table.show(tick.series.filter((one) => one.of === of));
    this.note(tick.pools);
    if (Date.now() - this.asked >= OVERVIEW_MS) this.ask();
  }

  async ask() {
    this.asked = Date.now();
    try {
      const answer = await fetch("history");
      if (!answer.ok) return;
      this.requests = new Map((await answer.json()).map(({ of, name, requests }) => [`${of} ${name}`, requests]));
    } catch {
      // The next tick asks again.
      this.asked = 0;
    }
  }

  /** Tokens are counted by destination service: pools that have one in common have its tokens in common. */
  note(pools) {
    const by = new Map();
    for (const pool of pools) {
      const service = `${pool.namespace}/${pool.name}`;
      by.set(service, [...(by.get(service) ?? []), poolLabel(pool)]);
    }
    const shared = [...by.values()].filter((labels) => labels.length > 1);
    const note = byId("series-note");
    note.hidden = shared.length === 0;
    write(note, shared.map((labels) => `${labels.join(" and ")} have the same destination: their tokens are counted together.`).join(" "));
  }
}
