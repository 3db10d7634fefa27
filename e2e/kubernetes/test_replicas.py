"""Several gateways on one cluster: each serves, one writes statuses."""

from __future__ import annotations

import signal

from cluster import ACCOUNT, SYSTEM
from harness import eventually
from objects import model, serve

LEASE = ("coordination.k8s.io/v1", "Lease", ACCOUNT, SYSTEM)


def holder(cluster) -> str:
    lease = cluster.find(*LEASE)
    return ((lease or {}).get("spec") or {}).get("holderIdentity") or ""


def test_both_replicas_serve_and_one_holds_the_lease(cluster, start, addresses):
    gates = [start(), start()]
    serve(cluster, addresses)
    for gate in gates:
        gate.wait_for(200)
        gate.wait_for_endpoints(*addresses)
    first = eventually(lambda: holder(cluster), "a holder of the lease")
    cluster.wait_until_ready(cluster.apply(model()))
    assert holder(cluster) == first
    if cluster.double:
        written = [
            entry
            for entry in cluster.double.writes()
            if entry.plural == "leases" and entry.code < 300 and entry.verb == "update"
        ]
        holders = {entry.body["spec"]["holderIdentity"] for entry in written}
        assert holders <= {first}, "the lease went back and forth"


def test_a_replica_that_stops_hands_the_lease_over(cluster, start, addresses):
    first = start()
    serve(cluster, addresses)
    before = eventually(lambda: holder(cluster), "a holder of the lease")
    second = start()
    second.wait_for(200)
    first.program.signal(signal.SIGTERM)
    assert first.program.wait() == 0
    # Its own no more, before it could have run out.
    assert holder(cluster) != before
    eventually(lambda: holder(cluster) not in ("", before), "another holder")
    assert second.ask().status_code == 200
    cluster.wait_until_ready(cluster.apply(model()))


def test_a_replica_that_dies_costs_nothing_but_its_connections(cluster, start, addresses):
    first = start()
    serve(cluster, addresses)
    first.wait_for(200)
    before = eventually(lambda: holder(cluster), "a holder of the lease")
    second = start()
    second.wait_for(200)
    first.kill()
    assert second.ask().status_code == 200
    # A lease that nobody renews runs out; a short one does so within the test.
    cluster.patch(cluster.get(*LEASE), {"spec": {"leaseDurationSeconds": 1}})
    eventually(lambda: holder(cluster) not in ("", before), "another holder")
    cluster.wait_until_ready(cluster.apply(model()))
    assert second.ask().status_code == 200
