"""The dashboard in a real browser, and its table in a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from pathlib import Path

import pytest
from browser import Browser
from harness import BASE_MODEL, Demo, Fleet, Gateway, Program, answers_200, binary, eventually, free_ports, post, run
from load import Load

pytestmark = pytest.mark.simulated

ENDPOINTS = "#endpoints-table"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.stop()


@pytest.fixture
def page(browser: Browser):
    """Opens dashboards; at the end, nothing may have been complained of."""
    browser.resize(1440, 1000)
    browser.prefer(color_scheme="light")
    browser.complaints()

    def page(gateway: Gateway) -> Browser:
        browser.open(gateway.admin)
        eventually(lambda: browser.text("#facts"), "the page is told the present")
        return browser

    yield page
    complaints = browser.complaints()
    browser.open("about:blank")
    assert complaints == []


def keep(browser: Browser, name: str) -> None:
    """A screenshot for people, in cargo's target directory."""
    folder = Path(binary()).parents[1] / "screenshots"
    folder.mkdir(exist_ok=True)
    browser.screenshot(folder / f"{name}.png")


def tile(browser: Browser, title: str) -> list[str]:
    """The lines of a tile."""
    script = "return [...document.querySelectorAll('.tile')].map(tile => tile.innerText)"
    tiles = [text.split("\n") for text in browser.run(script)]
    return next(lines[1:] for lines in tiles if lines[0] == title)


def states(browser: Browser) -> dict[str, str]:
    """What the table says of each endpoint's condition."""
    return {row[0].split()[0]: row[2] for row in browser.rows(ENDPOINTS) if len(row) > 2}


def strip(browser: Browser, title: str) -> str:
    """What is said beside the bars of the endpoints."""
    script = "return [...document.querySelectorAll('.strip')].map(strip => [...strip.querySelectorAll('span')].map(it => it.innerText))"
    return next(said for name, said in browser.run(script) if name == title)


def drawn(browser: Browser, title: str) -> str:
    """The first line of a chart."""
    script = """const chart = [...document.querySelectorAll('.chart')].find(one => one.innerText.startsWith(arguments[0]));
        return chart.querySelector('path.line-1:not(.legend path)').getAttribute('d') ?? ''"""
    return browser.run(script, title)


def test_the_dashboard_lives_under_the_demos_load(own, page):
    browser = page(own(Demo, "--load"))
    eventually(lambda: len(states(browser)) == 3, "a row an endpoint")
    eventually(lambda: set(states(browser).values()) == {"● ready"}, "all are ready")

    def ended() -> int:
        found = re.match(r"([\d,]+) since", tile(browser, "Requests")[1])
        return int(found[1].replace(",", "")) if found else 0

    before = eventually(ended, "a request has ended")
    eventually(lambda: ended() > before, "the number moves")
    first = eventually(lambda: drawn(browser, "Requests"), "the chart has a line")
    eventually(lambda: drawn(browser, "Requests") != first, "the line moves")
    eventually(lambda: re.search(r"\d (s|ms)", tile(browser, "TTFT p50")[0]), "times to first token")

    # Where requests went, and why.
    eventually(lambda: len(browser.rows("#decisions-table")) >= 3, "decisions")

    def explained() -> list[list[str]]:
        """Of the newest, which is another one the next time."""
        costs = browser.rows("#decision table")
        return costs if len(costs) == 3 and sum("chosen" in row[0] for row in costs) == 1 else []

    costs = eventually(explained, "one of three is chosen")
    assert all(re.search(r"\d (s|ms)", row[2]) for row in costs), "costs are times"
    bars = "return document.querySelectorAll('#decision .stack span').length"
    eventually(lambda: browser.run(bars), "bars for its terms")

    fits = """const table = document.querySelector('#series-table');
        return table.scrollWidth - table.parentElement.clientWidth"""
    assert browser.run(fits) <= 0, "the table of models is not wider than its box"

    # What configuration is live.
    eventually(lambda: len(browser.rows("#objects-table")) >= 8, "objects")

    def accepted() -> set[str]:
        return {row[1] for row in browser.rows("#objects-table") if row[2] == "● yes"}

    kinds = {"Gateway", "InferencePool", "InferenceModel", "LLMRoute"}
    eventually(lambda: accepted() >= kinds, "they are accepted")
    eventually(lambda: "vllm-llama2-7b-pool" in browser.text("#pools-table"), "the pool")

    keep(browser, "demo-light")
    browser.prefer(color_scheme="dark")
    dark = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", dark)[:3])) < 64, dark
    keep(browser, "demo-dark")

    wrapped = """const marks = [...document.querySelectorAll('.chart .y span')];
        for (const mark of marks) mark.textContent = '12.5 ms';
        return marks.filter(mark => mark.getClientRects().length !== 1
          || mark.getBoundingClientRect().left < mark.closest('.chart').getBoundingClientRect().left
          || mark.getBoundingClientRect().right > mark.closest('.frame').querySelector('.plot').getBoundingClientRect().left).length"""
    assert browser.run(wrapped) == 0, "marks of scales are in one line, beside the drawing"


def test_a_narrow_window_has_no_sideways_scroll_but_in_tables(own, page):
    browser = page(own(Demo))
    browser.resize(380, 800)
    eventually(lambda: len(states(browser)) == 3, "rows")
    assert browser.run("return document.documentElement.scrollWidth - window.innerWidth") <= 0
    keep(browser, "narrow")


def test_the_page_can_be_used_and_heard_without_seeing_it(own, page):
    browser = page(own(Demo))
    eventually(lambda: len(states(browser)) == 3, "rows")
    unnamed = browser.run("""
        const wrong = [];
        for (const table of document.querySelectorAll('table')) {
          if (!table.caption?.innerText.trim()) wrong.push(`${table.id} has no caption`);
          for (const head of table.querySelectorAll('th')) if (!head.scope) wrong.push(`${table.id}: ${head.innerText} has no scope`);
        }
        for (const region of document.querySelectorAll('[role=region],[role=group],[role=img],section,nav')) {
          const by = region.getAttribute('aria-labelledby');
          if (!region.getAttribute('aria-label') && !document.getElementById(by)) wrong.push(`${region.outerHTML.slice(0, 80)} has no name`);
        }
        for (const field of document.querySelectorAll('input,select')) if (!field.labels.length) wrong.push(`${field.id} has no label`);
        for (const scroll of document.querySelectorAll('.scroll')) if (scroll.tabIndex !== 0) wrong.push('a scrolled part cannot be reached');
        if (document.querySelectorAll('h1').length !== 1 || !document.querySelector('main')) wrong.push('no main heading, or no main part');
        return wrong""")
    assert unnamed == []
    sorts = "return document.querySelector('#endpoints-table th[aria-sort]').innerText"
    browser.click("#endpoints-table th:nth-child(4) button")
    assert browser.run(sorts).startswith("In flight")
    # Arrow keys go through a chart's times.
    eventually(lambda: "L" in drawn(browser, "Load"), "a chart with more than one time")
    browser.run("""document.querySelector('.plot').dispatchEvent(
        new KeyboardEvent('keydown', { key: 'Home', bubbles: true, cancelable: true }))""")
    label = browser.run("return document.querySelector('.plot').getAttribute('aria-label')")
    assert re.match(r"Requests, .* ago: ended ", label), label


def test_totals_are_those_of_the_load_and_a_killed_endpoint_is_shown_so(own, page):
    fleet = own(Fleet.simulated, apart=True)
    gateway = own(Gateway.before, fleet)
    with Load(gateway.url, concurrency=4, requests=40, max_tokens=10) as load:
        pass
    assert load.failures() == []
    records = eventually(lambda: (log := gateway.log()) and len(log) == 40 and log, "40 lines")
    prompt = sum(record["request_prompt_tokens"] for record in records)

    browser = page(gateway)

    def row(name: str) -> list[str]:
        rows = browser.rows("#series-table")
        found = next((row for row in rows if row[0] == name), [])
        return [cell.replace(",", "") for cell in found[-3:]]

    expected = ["40", str(prompt), "400"]
    eventually(lambda: row("tweet-summary") == expected, f"the model's totals {expected}")
    eventually(lambda: row("endpoints") == expected, f"the pool's totals {expected}")
    eventually(lambda: len(states(browser)) == 3, "rows")

    victim = fleet.urls[0].removeprefix("http://")
    # Somebody else's requests take a part of its KV cache.
    with Load(fleet.urls[0], concurrency=8, max_tokens=500):
        eventually(lambda: not strip(browser, "KV use").endswith(" to 0 %"), "its KV cache is in use")
        fleet.programs[0].signal(signal.SIGKILL)
    eventually(lambda: states(browser)[victim] == "✕ not ready", "the killed one is shown so")
    eventually(lambda: strip(browser, "KV use") == "mean 0 %, 0 % to 0 %", "what it had is not in the mean")
    eventually(lambda: tile(browser, "Endpoints")[0] == "2 of 3", "the others are ready")
    eventually(lambda: "1 not ready" in browser.text("#endpoints-summary"), "it is counted")
    browser.click("#endpoints-trouble")
    eventually(lambda: list(states(browser)) == [victim], "it alone is in trouble")
    keep(browser, "killed-endpoint")
    browser.click("#endpoints-trouble")

    Program(fleet.programs[0].out_path.parent, "sim-again", *fleet.programs[0].arguments)
    eventually(lambda: states(browser)[victim] == "● ready", "it is back")


def test_an_endpoint_that_tells_no_load_is_in_trouble(own, page):
    fleet = own(Fleet.simulated)
    browser = page(own(Gateway.before, fleet))
    eventually(lambda: list(states(browser).values()) == ["● ready"] * 3, "all are ready")
    victim = sorted(fleet.urls)[-1]
    Fleet([victim], []).fault("metrics-status:500")
    victim = victim.removeprefix("http://")
    eventually(lambda: states(browser)[victim] == "▲ stale metrics", "it is shown so")
    assert next(iter(states(browser))) == victim, "before those that are well"
    assert "1 stale metrics" in browser.text("#endpoints-summary")
    browser.click("#endpoints-trouble")
    assert list(states(browser)) == [victim], "it alone is in trouble"
    browser.click("#endpoints-trouble")
    Fleet([f"http://{victim}"], []).fault("none")
    eventually(lambda: states(browser)[victim] == "● ready", "it tells again")


def test_a_reader_keeps_the_place_while_decisions_come(own, page):
    fleet = own(Fleet.simulated, replicas=40)
    gateway = own(Gateway.before, fleet)
    browser = page(gateway)
    with Load(gateway.url, concurrency=4, max_tokens=20):
        rows = eventually(lambda: browser.rows("#decision table"), "candidates")
        eventually(lambda: len(browser.rows("#decision table")) == 32, "all that are told of")
        place = """const list = document.querySelector('#decision .scroll');
            list.focus(); list.scrollTop = 150; return document.querySelector('#decision dd').innerText"""
        request = browser.run(place)
        seen = {request}

        def followed() -> bool:
            first = browser.run("return document.querySelector('#decision tbody tr').innerText")
            assert "← chosen" in first, f"the chosen one is the first of {rows}"
            seen.add(browser.text("#decision dd"))
            return len(seen) > 3

        eventually(followed, "newer decisions are shown")
        at = """const list = document.querySelector('#decision .scroll');
            return [document.activeElement === list, list.scrollTop]"""
        assert browser.run(at) == [True, 150], "focus and place are kept"
    assert "count as equal and chance chooses among them" in browser.text("#decision")
    keep(browser, "decision-of-40")


def test_a_cost_has_one_colour_whichever_others_are_shown(own, page):
    gateway = own(Gateway.before, own(Fleet.simulated))
    browser = page(gateway)
    # Of an idle fleet, other terms are zero than of a busy one.
    body = {"model": BASE_MODEL, "prompt": "x", "max_tokens": 1}
    assert post(f"{gateway.url}/v1/completions", json=body).status_code == 200
    eventually(lambda: len(browser.rows("#decisions-table")) == 1, "a decision")
    script = """return [...document.querySelectorAll('#decisions-table .pick')].map(pick => {
        pick.click();
        return [...document.querySelectorAll('#decision .terms-legend li')].map(li => [li.innerText, li.firstChild.className])
      })"""

    def various() -> list[list[list[str]]]:
        legends = browser.run(script)
        return legends if len({len(legend) for legend in legends}) > 1 else []

    with Load(gateway.url, concurrency=4):
        legends = eventually(various, "decisions with different terms")
    colours = {pair[0]: set() for legend in legends for pair in legend}
    for name, colour in (pair for legend in legends for pair in legend):
        colours[name].add(colour)
    assert all(len(of_one) == 1 for of_one in colours.values()), colours


POOL = """apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: llama}
spec: {selector: {app: a}, targetPortNumber: 8000}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: chat}
spec: {modelName: chat, poolRef: {name: NAME}}
"""


def test_objects_not_accepted_are_shown_with_their_reason(own, page, tmp_path):
    folder = tmp_path / "objects"
    folder.mkdir()

    def write(text: str) -> None:
        (tmp_path / "partial").write_text(text)
        (tmp_path / "partial").rename(folder / "objects.yaml")

    write(POOL.replace("NAME", "lama"))
    browser = page(own(Gateway, "-f", folder, port=free_ports(1)[0]))

    def model() -> list[str]:
        return next((row for row in browser.rows("#objects-table") if row[0] == "default/chat"), [])

    shown = eventually(model, "the model")
    assert "✕ no" in shown[2:4], shown
    assert "lama" in shown[4] and ":" in shown[4], "the reason and what to do"
    keep(browser, "not-accepted")

    write(POOL.replace("NAME", "llama"))
    eventually(lambda: model()[2:4] == ["● yes", "● yes"], "once mended, it is accepted")
    write("kind: [")
    eventually(lambda: "objects.yaml" in browser.text("#rejected"), "the page says what was not applied")
    assert model()[2] == "● yes", "what was in force still is"
    write(POOL.replace("NAME", "llama"))
    eventually(lambda: browser.text("#rejected") == "", "and no longer")


def test_a_gateway_that_goes_away_is_missed_and_found_again(own, page, tmp_path):
    gateway = own(Gateway.before, own(Fleet.simulated, replicas=1))
    browser = page(gateway)
    eventually(lambda: states(browser), "a row")
    gateway.program.signal(signal.SIGKILL)
    gateway.program.wait()
    eventually(lambda: "does not answer" in browser.text("#connection"), "the page says so")
    assert "What is shown is from" in browser.text("#connection")
    assert states(browser), "what was known stays"
    # The time to the next attempt is told where it is not read out each second.
    browser.run("""window.heard = 0;
        const watch = { subtree: true, childList: true, characterData: true };
        new MutationObserver(() => { window.heard += 1; }).observe(document.querySelector('[role=status]'), watch);""")
    told = set()

    def counted_down() -> bool:
        told.add(browser.text("#retry"))
        return len({text for text in told if "next attempt" in text}) > 2

    eventually(counted_down, "the time to the next attempt")
    assert browser.run("return window.heard") == 0, "the notice is said once"
    # What the browser itself says of a refused connection is as it should be.
    assert all("ERR_CONNECTION" in line or "ERR_INCOMPLETE" in line for line in browser.complaints())
    keep(browser, "gateway-gone")
    began = time.monotonic()
    more = ["--endpoint", f"http://127.0.0.1:{free_ports(1)[0]}"]
    again = Program(tmp_path, "gateway-again", *gateway.program.arguments, *more)
    eventually(lambda: browser.text("#connection") == "", "it is found again")
    eventually(lambda: len(states(browser)) == 2, "and tells of its new life")
    up = re.search(r"up (\d+) s", browser.text("#facts"))
    assert up and int(up[1]) <= time.monotonic() - began, up
    # Whoever looks at a page when its gateway goes is told so.
    browser.open("about:blank")
    browser.complaints()
    again.stop()


def test_three_hundred_endpoints_fold_sort_and_filter(own, page):
    ports = free_ports(300)
    settings = ["--listen", f"127.0.0.1:{ports[0]}", "--replicas", len(ports)]
    servers = own(lambda folder: Program(folder, "sim", "sim", *settings))
    last_url = f"http://127.0.0.1:{ports[-1]}/health"
    servers.wait_until(lambda: answers_200(last_url), "the last one is healthy")
    browser = page(own(Gateway.before, Fleet([f"http://127.0.0.1:{port}" for port in ports], [])))
    eventually(lambda: browser.text("#endpoints-summary").startswith("300:"), "300 are counted")
    assert len(states(browser)) == 20, "the first ones only"
    bars = "return document.querySelectorAll('.strip').length"
    assert browser.run(bars) == 4
    keep(browser, "300-endpoints")
    browser.click("#endpoints-more")
    assert len(states(browser)) == 300
    last = sorted(states(browser))[-1]
    script = """const filter = document.querySelector('#endpoints-filter'); filter.value = arguments[0];
        filter.dispatchEvent(new Event('input', { bubbles: true }))"""
    browser.run(script, last)
    assert list(states(browser)) == [last]
    browser.run(script, "no such endpoint")
    assert "No endpoint matches" in browser.text(ENDPOINTS)


def test_names_from_clients_are_text(gateway, page):
    """What looks like HTML is shown, and does nothing."""
    name = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    body = {"model": name, "prompt": "x", "max_tokens": 1}
    response = post(f"{gateway.url}/v1/completions", json=body)
    assert response.status_code == 404, "no endpoint has it"
    browser = page(gateway)
    eventually(lambda: name in browser.text("#decisions-table"), "the decision is listed")
    inside = "return document.querySelectorAll('main img, main script, main iframe').length"
    assert browser.run(inside) == 0


def test_top_prints_the_table_for_pipes_and_once(own):
    fleet = own(Fleet.simulated)
    gateway = own(Gateway.before, fleet)
    done = run("top", "--once", "--admin", gateway.admin)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("endpoints 3:")
    assert "STATE↓" in lines[1]
    assert [line.split()[0] for line in lines[2:5]] == sorted(url.removeprefix("http://") for url in fleet.urls)

    top = Program(gateway.program.out_path.parent, "top", "top", "--sort", "kv", "--admin", gateway.admin)
    try:
        eventually(lambda: top.output.count("endpoints 3:") >= 3, "it goes on")
        rates = r"\s\d+\.\d\s"
        eventually(lambda: re.search(rates, top.output.rsplit("endpoints", 1)[1]), "rates")
        top.signal(signal.SIGTERM)
        assert top.wait() == 0
    finally:
        top.stop()
    gone = run("top", "--once", "--admin", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert gone.returncode == 1 and "--admin" in gone.stderr


def test_top_takes_the_terminal_and_gives_it_back(own):
    """On a terminal of its own: keys are obeyed, and the screen is as it was."""
    gateway = own(Gateway.before, own(Fleet.simulated, replicas=30))
    process, terminal = pty.fork()
    if process == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        os.execv(binary(), [binary(), "top", "--admin", gateway.admin])
    seen = b""

    def read() -> bytes:
        nonlocal seen
        while select.select([terminal], [], [], 0)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # it has ended
                break
            if not part:
                break
            seen += part
        return seen

    eventually(lambda: "STATE↓".encode() in read(), "the table")
    assert b"\x1b[?1049h" in seen, "on a screen of its own"
    os.write(terminal, b"s")
    eventually(lambda: "IN FLIGHT↓".encode() in read(), "sorted by the next column")
    os.write(terminal, b"r")
    eventually(lambda: "IN FLIGHT↑".encode() in read(), "the other way round")
    # Of 30 rows 21 fit between the heads and the foot.
    assert b"\r\n9 more" in read()
    os.write(terminal, b"\x1b[6~")
    eventually(lambda: "9 above, 0 more".encode() in read(), "the last page")
    os.write(terminal, b"\x1b[A")
    eventually(lambda: "8 above, 1 more".encode() in read(), "a row up")
    os.write(terminal, b"q")
    ended = []

    def has_ended() -> bool:
        read()
        ended[:] = os.waitpid(process, os.WNOHANG)
        return ended[0] == process

    eventually(has_ended, "it ends")
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    assert b"\x1b[?1049l" in read(), "the screen before is back"
    os.close(terminal)
