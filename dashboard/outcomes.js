// What became of requests: refused, tried again, broken off, left by their clients; and what settled where the others went.

import { byId } from "./dom.js";
import { count } from "./format.js";
import { Table, number, text } from "./table.js";

const WORDS = { refusal: "refused", retry: "tried again", disconnect: "client left", broken: "broke off" };

const counts = () => [
  number("Last 5 min", (row) => row.five_minutes, count),
  number("Last hour", (row) => row.hour, count),
  number("Since the start", (row) => row.total, count),
];

export class Outcomes {
  constructor() {
    const key = ({ outcome, pool, what }) => `${outcome} ${pool} ${what}`;
    this.failures = new Table(byId("failures-table"), {
      key, sorted: { column: "Last 5 min", down: true },
      columns: [
        text("Outcome", (row) => WORDS[row.outcome]), text("Reason", (row) => row.what.replaceAll("_", " ") || "–"),
        text("Pool", (row) => row.pool), ...counts(),
      ],
      none: "None since the start: no request was refused or had to be tried again, no answer broke off, and no client left early.",
    });
    this.picks = new Table(byId("picks-table"), {
      key, sorted: { column: "Since the start", down: true },
      columns: [text("Reason", (row) => row.what), text("Pool", (row) => row.pool), ...counts()],
      none: "No request was placed yet.",
    });
  }

  tell(tick) {
    this.failures.show(tick.outcomes.filter(({ outcome }) => outcome !== "pick"));
    this.picks.show(tick.outcomes.filter(({ outcome }) => outcome === "pick"));
  }
}
