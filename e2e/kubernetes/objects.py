"""Objects that several tests need, of the tutorial and of the Gateway API."""

from __future__ import annotations

import copy

from cluster import Cluster, documents
from harness import REPOSITORY

SEED = REPOSITORY / "examples" / "seed"
POOL = "vllm-llama2-7b-pool"
LABELS = {"app": POOL}
X = "inference.networking.x-k8s.io"
K8S = "inference.networking.k8s.io"
ISTIO = "networking.istio.io/v1"
GATEWAY_API = "gateway.networking.k8s.io/v1"
CONTROLLER = "tokenweir.dev/gateway-controller"


def seed(name: str) -> dict:
    """A manifest of the tutorial, without a namespace of its own."""
    item = copy.deepcopy(documents(SEED / name)[0])
    item["metadata"].pop("namespace", None)
    return item


def gateway(name: str = "llm-inference-gateway", port: int = 8080) -> dict:
    item = seed("gateway.yaml")
    item["metadata"]["name"] = name
    item["spec"]["servers"][0]["port"]["number"] = port
    return item


def route(name: str = "test-llm-route", pool: str = POOL, **spec) -> dict:
    item = seed("llmroute.yaml")
    item["metadata"]["name"] = name
    item["spec"]["rules"][0]["backendRefs"][0]["backendRef"]["name"] = pool
    item["spec"] |= spec
    return item


def pool(name: str = POOL, version: str = "", labels: dict | None = None, **spec) -> dict:
    """In the version of the tutorial, or in another: `v1alpha2`, `v1`."""
    labels = labels or LABELS
    item = seed("inferencepool.yaml")
    item["metadata"]["name"] = name
    item["spec"]["selector"] = labels
    if version == "v1":
        item["apiVersion"] = f"{K8S}/v1"
        item["spec"] = {"selector": {"matchLabels": labels}, "targetPorts": [{"number": 8000}]}
    elif version:
        item["apiVersion"] = f"{X}/{version}"
    item["spec"] |= spec
    return item


def model(name: str = "inferencemodel-sample", asked: str = "tweet-summary", **spec) -> dict:
    item = seed("inferencemodel.yaml")
    item["metadata"]["name"] = name
    item["spec"]["modelName"] = asked
    item["spec"] |= spec
    return item


def pods(cluster: Cluster, addresses: list[str], labels: dict | None = None, **more) -> list:
    labels = labels or LABELS
    stem = labels.get("app", "pod")
    return [
        cluster.pod(f"{stem}-{number}", address, labels, **more)
        for number, address in enumerate(addresses)
    ]


def serve(cluster: Cluster, addresses: list[str]) -> list:
    """Gateway, pool, route and Pods: what a request needs."""
    for item in (gateway(), pool(), route()):
        cluster.apply(item)
    return pods(cluster, addresses)


# --- Gateway API


def gateway_class(name: str = "tokenweir") -> dict:
    metadata = {"name": name}
    spec = {"controllerName": CONTROLLER}
    return {"apiVersion": GATEWAY_API, "kind": "GatewayClass", "metadata": metadata, "spec": spec}


def api_gateway(name: str, port: int) -> dict:
    listener = {"name": "http", "port": port, "protocol": "HTTP"}
    spec = {"gatewayClassName": "tokenweir", "listeners": [listener]}
    metadata = {"name": name}
    return {"apiVersion": GATEWAY_API, "kind": "Gateway", "metadata": metadata, "spec": spec}


def pool_backend(name: str, **more) -> dict:
    return {"group": K8S, "kind": "InferencePool", "name": name} | more


def reference_grant(name: str, namespace: str) -> dict:
    """Lets HTTPRoutes of that namespace refer to every pool of the grant's own."""
    source = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": namespace}
    spec = {"from": [source], "to": [{"group": K8S, "kind": "InferencePool"}]}
    item = {"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant"}
    return item | {"metadata": {"name": name}, "spec": spec}


def http_route(name: str, gateways: list[str], rules: list[dict], host: str = "") -> dict:
    parents = [{"name": gateway} for gateway in gateways]
    spec: dict = {"parentRefs": parents, "rules": rules}
    if host:
        spec["hostnames"] = [host]
    metadata = {"name": name}
    return {"apiVersion": GATEWAY_API, "kind": "HTTPRoute", "metadata": metadata, "spec": spec}


def path_rule(path: str, *backends: dict) -> dict:
    match = {"path": {"type": "PathPrefix", "value": path}}
    return {"matches": [match], "backendRefs": list(backends)}


def route_conditions(item: dict, gateway: str) -> dict[str, dict]:
    """Ours for one Gateway of an HTTPRoute."""
    for parent in (item.get("status") or {}).get("parents") or ():
        ours = parent.get("controllerName") == CONTROLLER
        if ours and parent["parentRef"]["name"] == gateway:
            return {condition["type"]: condition for condition in parent["conditions"]}
    return {}
