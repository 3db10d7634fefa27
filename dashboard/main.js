// The page: one connection, and panels that each show a part of what it tells.

import { Configuration } from "./configuration.js";
import { Decisions } from "./decisions.js";
import { badge, byId, write } from "./dom.js";
import { Endpoints } from "./endpoints.js";
import { clock, span } from "./format.js";
import { Outcomes } from "./outcomes.js";
import { SeriesTable } from "./series.js";
import { follow } from "./stream.js";
import { Traffic } from "./traffic.js";

const traffic = new Traffic();
const panels = [
  traffic, new SeriesTable((scope) => traffic.choose(scope)), new Endpoints(), new Decisions(), new Outcomes(),
  new Configuration(), { tell: bar },
];

/** Also where only the tab is seen. */
function title(trouble) {
  const wanted = trouble ? `Tokenweir: ${trouble}` : "Tokenweir";
  if (document.title !== wanted) document.title = wanted;
}

function bar(tick) {
  title(tick.not_ready ? "not ready" : "");
  write(byId("facts"), `${tick.version}, up ${span(tick.uptime_seconds)}, ${clock(tick.time)}`);
  const state = tick.not_ready ?? "ready";
  const place = byId("gateway-state");
  if (place.dataset.of === state) return;
  place.dataset.of = state;
  place.replaceChildren(badge(tick.not_ready ? "warning" : "good", state));
}

let countdown = null;

function connection({ live, retryAt, since }) {
  clearInterval(countdown);
  document.body.classList.toggle("stale", !live);
  const [notice, next] = [byId("connection"), byId("retry")];
  notice.hidden = next.hidden = live;
  if (live) {
    write(notice, "");
    return;
  }
  title("no connection");
  const place = byId("gateway-state");
  place.dataset.of = "gone";
  place.replaceChildren(badge("bad", "no connection"));
  const shown = since ? `What is shown is from ${clock(since)}.` : "Nothing was heard yet.";
  write(notice, `The gateway does not answer. ${shown} The page tries again.`);
  // Not in the notice: that is read out whenever it changes.
  const say = () => {
    const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
    write(next, `next attempt ${seconds ? `in ${seconds} s` : "now"}`);
  };
  say();
  countdown = setInterval(say, 1000);
}

follow((tick) => panels.forEach((panel) => panel.tell(tick)), connection);
