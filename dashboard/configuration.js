// What configuration is live: objects and whether they are accepted, what they come to, and what was wrong.

import { badge, byId, make, write } from "./dom.js";
import { count, poolLabel } from "./format.js";
import { Table, number, text } from "./table.js";

const FOLD = 12;

export class Configuration {
  constructor() {
    this.version = null;
    this.objects = new Table(byId("objects-table"), {
      key: (row) => row.key, fold: FOLD, more: byId("objects-more"), columns: objectColumns(),
      none: "There are no objects: the gateway was started with --endpoint, or its files hold none.",
    });
    this.routes = new Table(byId("routes-table"), {
      key: (row) => row.key, columns: routeColumns(), none: "No route is in force: every request is answered 404, no_route.",
    });
    this.pools = new Table(byId("pools-table"), { key: (row) => row.key, columns: poolColumns(), none: "No pool is in force." });
  }

  tell(tick) {
    if (tick.configuration.version === this.version) return;
    this.version = tick.configuration.version;
    this.load();
  }

  async load() {
    const asked = this.version;
    try {
      const [dump, objects] = await Promise.all(["config_dump", "objects"].map(async (path) => {
        const answer = await fetch(path);
        if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
        return answer.json();
      }));
      if (asked === this.version) this.show(dump, objects);
    } catch {
      // The next tick tries again.
      this.version = null;
    }
  }

  show(dump, objects) {
    const rows = objects.map(objectRow);
    const bad = rows.filter((row) => row.rank === 0).length;
    const judged = rows.filter((row) => row.rank < 2).length;
    const applied = dump.applied ? `, applied ${new Date(dump.applied).toLocaleString("en-GB")}` : "";
    const said = objects.length ? `; ${judged - bad} of ${judged} objects accepted with all they refer to` : "";
    write(byId("configuration-summary"), `Generation ${dump.generation ?? "–"}${applied}${said}`);
    this.objects.show(rows.sort((a, b) => a.rank - b.rank || a.key.localeCompare(b.key)));
    this.routes.show((dump.desired?.routes ?? []).flatMap(routeRows));
    this.pools.show((dump.desired?.pools ?? []).map((spec) => ({ ...spec, key: poolLabel(spec.pool) })));
    this.problems(dump.problems ?? []);
    this.rejected(dump.rejected ?? []);
    settings(dump.settings ?? {});
  }

  problems(problems) {
    const items = problems.map((problem) => make("li", {}, problem));
    byId("problems").replaceChildren(...(items.length ? [make("h3", {}, "Noticed about the configuration in force"), make("ul", { class: "problems" }, ...items)] : []));
  }

  rejected(errors) {
    const notice = byId("rejected");
    notice.hidden = errors.length === 0;
    write(notice, errors.length === 0 ? "" : `The configuration was changed, and the change was not applied: the last good one stays in force.\n${errors.join("\n")}`);
  }
}

/** Conditions in whichever shape the object's version has them. */
function conditionsOf({ status }) {
  const parents = status?.parents ?? status?.parent ?? status?.ancestors;
  return parents ? parents.flatMap((parent) => parent.conditions ?? []) : (status?.conditions ?? []);
}

function objectRow(object) {
  const { name, namespace } = object.metadata;
  const conditions = conditionsOf(object);
  const of = (type) => {
    const found = conditions.filter((condition) => condition.type === type);
    return found.length ? found.every(({ status }) => status === "True") : null;
  };
  const wrong = conditions.filter(({ status }) => status !== "True");
  const why = wrong.map(({ reason, message }) => (message ? `${reason}: ${message}` : reason)).join("; ");
  return {
    key: `${object.kind} ${namespace ?? ""}/${name}`, kind: object.kind, name: namespace ? `${namespace}/${name}` : name,
    accepted: of("Accepted"), resolved: of("ResolvedRefs"), why, rank: wrong.length ? 0 : conditions.length ? 1 : 2,
  };
}

function truth(head, value) {
  const cell = (cell, row) => {
    const is = value(row);
    if (cell.dataset.of === String(is)) return;
    cell.dataset.of = String(is);
    cell.replaceChildren(is === null ? "–" : badge(is ? "good" : "bad", is ? "yes" : "no"));
  };
  return { head, cell, sort: (row) => (value(row) === null ? null : Number(value(row))) };
}

const objectColumns = () => [
  text("Object", (row) => row.name),
  text("Kind", (row) => row.kind),
  truth("Accepted", (row) => row.accepted),
  truth("References", (row) => row.resolved),
  text("Why not", (row) => row.why, { wrap: true, sort: null }),
];

function routeRows({ name, port, hosts, rules }) {
  return rules.map((rule, index) => ({
    key: `${name} ${index}`, name: rule.name ? `${name} (${rule.name})` : name, port, hosts: hosts.join(", "),
    matches: rule.matches.map(matchText).join(" or ") || "everything",
    pools: rule.pools.map(({ pool, weight }) => (rule.pools.length > 1 ? `${poolLabel(pool)} (${weight})` : poolLabel(pool))).join(", ") || "–",
  }));
}

function matchText({ path, headers }) {
  const value = (match) => Object.entries(match).map(([how, what]) => (how === "present" ? "is there" : `${how === "exact" ? "=" : how} ${what}`)).join("");
  const parts = Object.entries(headers ?? {}).map(([name, match]) => `${name} ${value(match)}`);
  return [...(path ? [`path ${value(path)}`] : []), ...parts].join(" and ") || "everything";
}

const routeColumns = () => [
  text("Route", (row) => row.name, { sort: null }),
  number("Port", (row) => row.port, String, { sort: null }),
  text("Hosts", (row) => row.hosts, { wrap: true, sort: null }),
  text("Matches", (row) => row.matches, { wrap: true, sort: null }),
  text("Pools", (row) => row.pools, { wrap: true, sort: null }),
];

const poolColumns = () => [
  text("Pool", (row) => row.key, { sort: null }),
  text("Policy", (row) => row.policy, { sort: null }),
  number("Endpoints", (row) => row.endpoints.length, count, { sort: null }),
  number("Models", (row) => row.models.length, count, { sort: null, title: "Models that objects name" }),
  number("Attempts", (row) => row.delivery?.attempts_max, count, { sort: null, title: "Endpoints tried at the most" }),
  number("Waiting, most", (row) => row.flow_control?.requests_max, count, { sort: null, title: "Requests that may wait in the gateway" }),
];

function settings(values) {
  const shown = (value) => (value !== null && typeof value === "object" ? Object.entries(value).map(([key, one]) => `${key}=${one}`).join(", ") : String(value));
  const pairs = Object.entries(values).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, shown(value) || "–")]);
  byId("settings").replaceChildren(...pairs);
}
