// The connection to the gateway: one event a second. When it breaks, it is made again, at ever longer intervals.

const WAIT_MIN_MS = 500;
const WAIT_MAX_MS = 15_000;
/// No event for so long is a broken connection, whatever the network says.
const SILENCE_MAX_MS = 10_000;

/**
 * Follows the gateway for as long as the page can be seen.
 *
 * `told(tick)` gets each event; `state({ live, retryAt, since })` is called when the connection changes.
 */
export function follow(told, state) {
  let source = null;
  let timer = null;
  let watchdog = null;
  let failures = 0;
  let lastHeard = null;

  function open() {
    close();
    source = new EventSource("events");
    source.onmessage = (event) => {
      const back = failures > 0 || lastHeard === null;
      failures = 0;
      lastHeard = Date.now();
      arm();
      if (back) state({ live: true });
      told(JSON.parse(event.data));
    };
    source.onerror = lost;
    arm();
  }

  // Closes what is open without a word.
  function close() {
    clearTimeout(timer);
    clearTimeout(watchdog);
    source?.close();
    source = null;
  }

  function arm() {
    clearTimeout(watchdog);
    watchdog = setTimeout(lost, SILENCE_MAX_MS);
  }

  function lost() {
    close();
    failures += 1;
    // The first attempt is at once: streams end now and then by themselves. Chance keeps many pages from coming together.
    const most = Math.min(WAIT_MAX_MS, WAIT_MIN_MS * 2 ** (failures - 1));
    const wait = failures === 1 ? 50 : most * (0.75 + Math.random() / 2);
    if (failures > 1) state({ live: false, retryAt: Date.now() + wait, since: lastHeard });
    timer = setTimeout(open, wait);
  }

  // Who does not look needs no news, and browsers have few connections for each host.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else if (source === null) open();
  });
  if (!document.hidden) open();
}
