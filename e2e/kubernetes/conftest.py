"""Fixtures: an API server, simulated vLLM servers on Pods' addresses, gateways that follow both."""

from __future__ import annotations

import os

import pytest
from cluster import Cluster
from gateway import Gateway, Network, Server
from harness import Program

KUBECONFIG = "TOKENWEIR_TEST_KUBECONFIG"
SERVERS = 3


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--scale", action="store_true", help="measure a large cluster, and only that")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "faults(why): needs what only the double can be made to do; skipped on a real server",
    )
    config.addinivalue_line("markers", "scale: measures a large cluster; run with --scale, alone")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = config.getoption("--scale")
    left_out = [item for item in items if bool(item.get_closest_marker("scale")) != asked]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    if not os.environ.get(KUBECONFIG):
        return
    for item in items:
        marker = item.get_closest_marker("faults")
        if marker:
            item.add_marker(pytest.mark.skip(reason=f"{marker.args[0]} ({KUBECONFIG} is set)"))


@pytest.fixture(scope="session")
def network() -> Network:
    return Network()


@pytest.fixture(scope="session")
def shared_servers(network: Network, tmp_path_factory: pytest.TempPathFactory):
    """Servers that no test harms, on three ports each."""
    folder = tmp_path_factory.mktemp("servers")
    servers = [Server(folder, network.address(), ports=3) for _ in range(SERVERS)]
    for server in servers:
        server.wait()
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def addresses(shared_servers) -> list[str]:
    return [server.address for server in shared_servers]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    """Makes the API server of a test: a double of its own, or the one server there is."""
    path = os.environ.get(KUBECONFIG)
    folder = tmp_path_factory.mktemp("cluster")
    first = Cluster.of_kubeconfig(folder, path) if path else Cluster.of_double(folder)
    first.prepare()

    def another(folder) -> Cluster:
        if path:
            return Cluster.of_kubeconfig(folder, path)
        return Cluster.of_double(folder, first.double.store.copy())

    yield another
    first.stop()


@pytest.fixture
def cluster(prepared, tmp_path):
    """The double, or the server of TOKENWEIR_TEST_KUBECONFIG, with a namespace for this test."""
    made = prepared(tmp_path)
    made.begin()
    yield made
    made.stop()


@pytest.fixture
def start(cluster: Cluster, network: Network, tmp_path):
    """Starts gateways: `start()`, `start("--labels", "a=b", namespace=None)`."""
    first = len(Program.started)

    def start(*arguments: str, **settings) -> Gateway:
        return Gateway(tmp_path, cluster, network.address(), *arguments, **settings)

    yield start
    for program in Program.started[first:]:
        program.stop()
