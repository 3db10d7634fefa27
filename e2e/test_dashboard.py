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
from pathlib import Path

import httpx
import pytest
from browser import Browser
from harness import Fleet, Gateway, Program, answers_200, binary, eventually, free_ports, run
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
        eventually(lambda: browser.text("#facts"), 20, "the page is told the present")
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


def drawn(browser: Browser, title: str) -> str:
    """The first line of a chart."""
    script = """const chart = [...document.querySelectorAll('.chart')].find(one => one.innerText.startsWith(arguments[0]));
        return chart.querySelector('path.line-1:not(.legend path)').getAttribute('d') ?? ''"""
    return browser.run(script, title)


class Demo(Gateway):
    """`tokenweir demo`, which is a gateway as well."""

    def __init__(self, folder: Path, *arguments: str):
        traffic, admin, health, stats = free_ports(4)
        self.url, self.admin = f"http://127.0.0.1:{traffic}", f"http://127.0.0.1:{admin}"
        addresses = ["--port", traffic, "--admin", f"127.0.0.1:{admin}"]
        addresses += ["--health", f"127.0.0.1:{health}", "--stats", f"127.0.0.1:{stats}"]
        self.program = Program(folder, "demo", "demo", *arguments, *addresses)
        self.program.wait_until(lambda: "Try it" in self.program.output, "is ready")


def test_the_dashboard_lives_under_the_demos_load(own, page):
    browser = page(own(Demo, "--load"))
    eventually(lambda: len(states(browser)) == 3, 20, "a row an endpoint")
    eventually(lambda: set(states(browser).values()) == {"● ready"}, 20, "all are ready")

    def ended() -> int:
        found = re.match(r"([\d,]+) since", tile(browser, "Requests")[1])
        return int(found[1].replace(",", "")) if found else 0

    before = eventually(ended, 30, "a request has ended")
    eventually(lambda: ended() > before, 30, "the number moves")
    first = eventually(lambda: drawn(browser, "Requests"), 10, "the chart has a line")
    eventually(lambda: drawn(browser, "Requests") != first, 10, "the line moves")
    eventually(lambda: "ms" in tile(browser, "TTFT p50")[0], 30, "times to first token")

    # Where requests went, and why.
    eventually(lambda: len(browser.rows("#decisions-table")) >= 3, 30, "decisions")
    costs = browser.rows("#decision table")
    assert len(costs) == 3, costs
    assert sum("chosen" in row[0] for row in costs) == 1, costs
    assert all(re.search(r"\d (s|ms)", row[2]) for row in costs), "costs are times"
    assert browser.run("return document.querySelectorAll('#decision .stack span').length") > 0

    # What configuration is live.
    eventually(lambda: len(browser.rows("#objects-table")) >= 8, 10, "objects")
    accepted = [row for row in browser.rows("#objects-table") if row[2] == "● yes"]
    assert {row[1] for row in accepted} >= {"Gateway", "InferencePool", "InferenceModel", "LLMRoute"}
    assert "vllm-llama2-7b-pool" in browser.text("#pools-table")

    keep(browser, "demo-light")
    browser.prefer(color_scheme="dark")
    dark = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", dark)[:3])) < 64, dark
    keep(browser, "demo-dark")


def test_a_narrow_window_has_no_sideways_scroll_but_in_tables(own, page):
    browser = page(own(Demo))
    browser.resize(380, 800)
    eventually(lambda: len(states(browser)) == 3, 20, "rows")
    assert browser.run("return document.documentElement.scrollWidth - window.innerWidth") <= 0
    keep(browser, "narrow")


def test_the_page_can_be_used_and_heard_without_seeing_it(own, page):
    browser = page(own(Demo))
    eventually(lambda: len(states(browser)) == 3, 20, "rows")
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
    eventually(lambda: "L" in drawn(browser, "Load"), 10, "a chart with more than one time")
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
    records = eventually(lambda: (log := gateway.log()) and len(log) == 40 and log, 10, "40 lines")
    prompt = sum(record["request_prompt_tokens"] for record in records)

    browser = page(gateway)

    def row(name: str) -> list[str]:
        rows = browser.rows("#series-table")
        found = next((row for row in rows if row[0] == name), [])
        return [cell.replace(",", "") for cell in found[-3:]]

    expected = ["40", str(prompt), "400"]
    eventually(lambda: row("tweet-summary") == expected, 10, f"the model's totals {expected}")
    assert row("endpoints") == expected, "the pool's totals"
    eventually(lambda: len(states(browser)) == 3, 10, "rows")

    victim = fleet.urls[0].removeprefix("http://")
    fleet.programs[0].signal(signal.SIGKILL)
    eventually(lambda: states(browser)[victim] == "✕ not ready", 20, "the killed one is shown so")
    assert tile(browser, "Endpoints")[0] == "2 of 3"
    assert "1 not ready" in browser.text("#endpoints-summary")
    browser.click("#endpoints-trouble")
    assert list(states(browser)) == [victim]
    keep(browser, "killed-endpoint")
    browser.click("#endpoints-trouble")

    Program(fleet.programs[0].out_path.parent, "sim-again", *fleet.programs[0].arguments)
    eventually(lambda: states(browser)[victim] == "● ready", 20, "it is back")


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

    shown = eventually(model, 10, "the model")
    assert "✕ no" in shown[2:4], shown
    assert "lama" in shown[4] and ":" in shown[4], "the reason and what to do"
    keep(browser, "not-accepted")

    write(POOL.replace("NAME", "llama"))
    eventually(lambda: model()[2:4] == ["● yes", "● yes"], 20, "once mended, it is accepted")
    write("kind: [")
    eventually(lambda: "objects.yaml" in browser.text("#rejected"), 20, "the page says what was not applied")
    assert model()[2] == "● yes", "what was in force still is"
    write(POOL.replace("NAME", "llama"))
    eventually(lambda: browser.text("#rejected") == "", 20, "and no longer")


def test_a_gateway_that_goes_away_is_missed_and_found_again(own, page, tmp_path):
    gateway = own(Gateway.before, own(Fleet.simulated, replicas=1))
    browser = page(gateway)
    eventually(lambda: states(browser), 10, "a row")
    gateway.program.signal(signal.SIGKILL)
    gateway.program.wait(5)
    eventually(lambda: "does not answer" in browser.text("#connection"), 20, "the page says so")
    assert "What is shown is from" in browser.text("#connection")
    assert states(browser), "what was known stays"
    # What the browser itself says of a refused connection is as it should be.
    assert all("ERR_CONNECTION" in line or "ERR_INCOMPLETE" in line for line in browser.complaints())
    keep(browser, "gateway-gone")
    again = Program(tmp_path, "gateway-again", *gateway.program.arguments)
    eventually(lambda: browser.text("#connection") == "", 40, "it is found again")
    eventually(lambda: re.search(r"up \d s", browser.text("#facts")), 5, "and tells of its new life")
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
    eventually(lambda: browser.text("#endpoints-summary").startswith("300:"), 30, "300 are counted")
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
    response = httpx.post(f"{gateway.url}/v1/completions", json=body, timeout=30)
    assert response.status_code == 404, "no endpoint has it"
    browser = page(gateway)
    eventually(lambda: name in browser.text("#decisions-table"), 10, "the decision is listed")
    inside = "return document.querySelectorAll('main img, main script, main iframe').length"
    assert browser.run(inside) == 0


def test_top_prints_the_table_for_pipes_and_once(own):
    fleet = own(Fleet.simulated)
    gateway = own(Gateway.before, fleet)
    done = run("top", "--once", "--admin", gateway.admin)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("endpoints 3:")
    assert lines[1].startswith("ENDPOINT↓")
    assert [line.split()[0] for line in lines[2:5]] == sorted(url.removeprefix("http://") for url in fleet.urls)

    top = Program(gateway.program.out_path.parent, "top", "top", "--sort", "kv", "--admin", gateway.admin)
    try:
        eventually(lambda: top.output.count("endpoints 3:") >= 3, 20, "it goes on")
        rates = r"\s\d+\.\d\s"
        eventually(lambda: re.search(rates, top.output.rsplit("endpoints", 1)[1]), 10, "rates")
        top.signal(signal.SIGTERM)
        assert top.wait(10) == 0
    finally:
        top.stop()
    gone = run("top", "--once", "--admin", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert gone.returncode == 1 and "--admin" in gone.stderr


def test_top_takes_the_terminal_and_gives_it_back(own):
    """On a terminal of its own: keys are obeyed, and the screen is as it was."""
    gateway = own(Gateway.before, own(Fleet.simulated))
    process, terminal = pty.fork()
    if process == 0:
        os.execv(binary(), [binary(), "top", "--admin", gateway.admin])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
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

    eventually(lambda: "ENDPOINT↓".encode() in read(), 20, "the table")
    assert b"\x1b[?1049h" in seen, "on a screen of its own"
    os.write(terminal, b"s")
    eventually(lambda: "POOL↓".encode() in read(), 10, "sorted by the next column")
    os.write(terminal, b"r")
    eventually(lambda: "POOL↑".encode() in read(), 10, "the other way round")
    os.write(terminal, b"q")
    ended = []

    def has_ended() -> bool:
        read()
        ended[:] = os.waitpid(process, os.WNOHANG)
        return ended[0] == process

    eventually(has_ended, 10, "it ends")
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    assert b"\x1b[?1049l" in read(), "the screen before is back"
    os.close(terminal)
