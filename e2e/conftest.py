"""Fixtures: a fleet of vLLM servers and a gateway in front of it; logs shown when a test fails."""

from __future__ import annotations

import os
import signal

import openai
import pytest
from harness import ADAPTERS, PATIENCE_SECONDS, Fleet, Gateway, Program, binary, real_endpoints

# Of a test that hangs where nothing else has a bound: longer than several waits.
TEST_SECONDS = 10 * PATIENCE_SECONDS


def pytest_configure(config: pytest.Config) -> None:
    if not config.option.collectonly:
        binary()

    # Asked to end, still end what we started.
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Against real vLLM, what only a simulator can do is left out, and counted as deselected."""
    if real_endpoints():
        left_out = [item for item in items if item.get_closest_marker("simulated")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for program in Program.started[item.stash.get(FIRST_PROGRAM, 0) :]:
            report.sections.append((program.name, program.tail()))
        for shared in item.config.stash.get(SHARED, []):
            report.sections.append((shared.name, shared.tail()))


FIRST_PROGRAM = pytest.StashKey[int]()
SHARED = pytest.StashKey[list]()


@pytest.fixture(autouse=True)
def limit(request: pytest.FixtureRequest):
    """No test hangs the suite; and what a test starts itself is known from here on."""

    def too_long(*_: object) -> None:
        raise TimeoutError(f"the test took more than {TEST_SECONDS} s")

    request.node.stash[FIRST_PROGRAM] = len(Program.started)
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(TEST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Three endpoints for all tests that do no harm to them: fast simulated ones, or real ones."""
    if real_endpoints():
        yield Fleet(real_endpoints(), [])
        return
    fleet = Fleet.simulated(tmp_path_factory.mktemp("fleet"))
    request.config.stash.setdefault(SHARED, []).extend(fleet.programs)
    yield fleet
    fleet.stop()


@pytest.fixture(scope="session")
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, fleet: Fleet):
    """One gateway in front of `fleet`."""
    gateway = Gateway.before(tmp_path_factory.mktemp("gateway"), fleet)
    request.config.stash.setdefault(SHARED, []).append(gateway.program)
    yield gateway
    gateway.stop()


@pytest.fixture
def own(tmp_path):
    """Makes fleets and gateways for one test: `own(Fleet.simulated, speedup=1)`."""
    made = []

    def make(how, *arguments, **settings):
        made.append(how(tmp_path, *arguments, **settings))
        return made[-1]

    first = len(Program.started)
    yield make
    for thing in reversed(made):
        thing.stop()
    for program in Program.started[first:]:  # those that never became ready
        program.stop()


@pytest.fixture(scope="session")
def model(fleet: Fleet) -> str:
    """A model to ask for: the seed's adapter, or what the real servers have."""
    if not fleet.programs:
        named = os.environ.get("TOKENWEIR_MODEL")
        return named or client_of(fleet.urls[0]).models.list().data[0].id
    assert "tweet-summary" in ADAPTERS
    return "tweet-summary"


def client_of(url: str, kind=openai.OpenAI):
    """The official client, without its own retries: they would hide our failures."""
    return kind(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=PATIENCE_SECONDS)


@pytest.fixture
def client(gateway: Gateway) -> openai.OpenAI:
    return client_of(gateway.url)
