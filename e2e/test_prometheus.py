"""The shipped rules and dashboard against a real Prometheus, under load and with faults."""

from __future__ import annotations

import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import yaml
from harness import PATIENCE_SECONDS, REPOSITORY, Fleet, Gateway, eventually, free_ports, pools, post, samples
from load import Load
from prometheus import DASHBOARD, SHIPPED, Prometheus, panels, promtool, rules

pytestmark = pytest.mark.simulated

@pytest.fixture
def observed(own, tmp_path) -> tuple[Fleet, Gateway, Gateway, Prometheus]:
    """Two gateways before the same endpoints."""
    fleet = own(Fleet.simulated, speedup=10, apart=True)
    # Nobody takes the spans.
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"traces: {{endpoint: 'http://127.0.0.1:{free_ports(1)[0]}/v1/traces'}}\n")

    def gateway() -> Gateway:
        port = free_ports(1)[0]
        objects = tmp_path / f"objects-{port}.yaml"
        round_robin = {"loadBalancing": {"policy": "round-robin"}}
        objects.write_text(pools(port, fleet.ports, a={}, b=round_robin))
        return own(Gateway, "-f", objects, "--config", settings, port=port)

    gateways = [gateway(), gateway()]
    return fleet, *gateways, own(Prometheus, gateways, fleet)


def leave(gateway: Gateway) -> None:
    """A client that sends a request and does not wait for its answer."""
    address = httpx.URL(gateway.url)
    body = json.dumps({"model": "sql-lora", "prompt": "x", "max_tokens": 2000, "stream": True})
    head = "POST /v1/completions HTTP/1.1\r\nhost: a.test\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(body)}\r\n\r\n"
    with socket.create_connection((address.host, address.port), timeout=PATIENCE_SECONDS) as client:
        client.sendall((head + body).encode())
        assert client.recv(1)


def test_every_query_gives_data_and_what_goes_wrong_fires(observed):
    fleet, gateway, second, prom = observed
    with (
        Load(gateway.url, host="a.test", concurrency=3, streams="both") as load,
        Load(second.url, host="b.test", concurrency=2, streams="both") as other,
    ):
        eventually(lambda: len(load.answers) > 20 and len(other.answers) > 10, "a warm gateway")
        # Nothing that has waited two seconds fires, but for the spans nobody takes.
        eventually(lambda: prom.firing() == {"TokenweirSpansDropped"}, "spans are missed")
        leave(gateway)
        # Streams are cut inside, other answers before their first byte.
        Fleet(fleet.urls[:1], []).fault("reset:3")
        eventually(lambda: prom.numbers("tokenweir_retries_total"), "somebody moved on")
        eventually(lambda: prom.numbers("tokenweir_broken_answers_total"), "an answer broke off")
        fleet.programs[0].process.kill()
        missed = {fleet.urls[0].split("/")[2]}

        def down() -> set[str]:
            firing = prom.query("ALERTS{alertname='TokenweirEndpointDown', alertstate='firing'}")
            return {series["metric"]["endpoint"] for series in firing}

        eventually(lambda: down() == missed, "the endpoint is missed, and no other")
        # Refused, for the client's mistake.
        bad = post(f"{gateway.url}/v1/completions", content="{", headers={"host": "a.test"})
        assert bad.status_code == 400

        missing = {panel.name: panel.expression for panel in panels("predicted", "round-robin")}

        def all_have_data() -> bool:
            for name, expression in list(missing.items()):
                if prom.numbers(expression):
                    del missing[name]
            return not missing

        try:
            eventually(all_have_data, "data for every panel")
        except pytest.fail.Exception:
            pytest.fail(f"without data: {json.dumps(missing, indent=2)}")
        for rule in rules():
            check_rule(prom, rule)
        record = "pool_policy_le:tokenweir_time_to_first_token_seconds_bucket:rate1m"
        policies = {"predicted", "round-robin"}
        eventually(
            lambda: {series["metric"]["policy"] for series in prom.query(record)} == policies,
            "both policies are compared",
        )
        for program in fleet.programs[1:]:
            program.process.kill()
        expected = {"TokenweirPoolEmpty", "TokenweirRefusals"}
        eventually(lambda: expected <= prom.firing(), "an empty pool refuses")
    gateway.program.process.kill()
    eventually(lambda: "TokenweirGatewayDown" in prom.firing(), "the gateway is missed")


def of_every_kind(port: int, endpoint: int) -> str:
    """An InferencePool, another in a namespace and with a dot in its name, and a Service there."""
    objects = list(yaml.safe_load_all(pools(port, [endpoint], plain={})))
    away = list(yaml.safe_load_all(pools(port, [endpoint], **{"llama-3.1": {}})))
    away = [it for it in away if it["kind"] != "Gateway"]
    (route,) = [it for it in away if it["kind"] == "LLMRoute"]
    service = {"selector": {"app": "vllm"}, "ports": [{"port": 80, "targetPort": endpoint}]}
    away.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "svc"}, "spec": service})
    to_service = [{"backendRefs": [{"backendRef": {"kind": "Service", "name": "svc", "port": 80}}]}]
    spec = route["spec"] | {"host": "svc.test", "rules": to_service}
    away.append(route | {"metadata": {"name": "svc"}, "spec": spec})
    for it in away:
        it["metadata"]["namespace"] = "ai"
        if it["kind"] == "LLMRoute":
            it["spec"]["gateways"] = ["default/gateway"]
    return yaml.safe_dump_all(objects + away)


def test_panels_by_destination_follow_the_pool_that_is_chosen(own, tmp_path):
    fleet = own(Fleet.simulated, replicas=1)
    port = free_ports(1)[0]
    objects = tmp_path / "objects.yaml"
    objects.write_text(of_every_kind(port, fleet.ports[0]))
    gateway = own(Gateway, "-f", objects, port=port)
    prom = own(Prometheus, [gateway], fleet)
    asked = {"plain": "sql-lora", "ai/llama-3.1": "sql-lora-1", "ai/svc:80": "sql-lora-2"}

    def ask(host: str, model: str) -> int:
        body = {"model": model, "prompt": "x", "max_tokens": 2}
        headers = {"host": host}
        return post(f"{gateway.url}/v1/completions", json=body, headers=headers).status_code

    for pool, model in asked.items():
        name = pool.split("/")[-1].split(":")[0]
        eventually(lambda name=name, model=model: ask(f"{name}.test", model) == 200, f"{pool} answers")
    assert ask("nobody.test", "sql-lora") == 404
    wanted = {"Responses A", "Token throughput A", "Token throughput B", "Tokens by model A"}

    def shown(pool: str, model: str) -> set[str]:
        chosen = [panel for panel in panels(pool=pool, model=model) if panel.name in wanted]
        return {panel.name for panel in chosen if prom.numbers(panel.expression)}

    for pool, model in asked.items():
        eventually(lambda model=model: shown(".*", model) == wanted, f"{model} in all pools")
        eventually(lambda pool=pool, model=model: shown(pool, model) == wanted, f"{model} in {pool}")
        for other in asked.values():
            assert other == model or shown(pool, other) == set(), f"{other} is not in {pool}"
    (responses,) = [panel for panel in panels(pool="plain") if panel.name == "Responses A"]
    codes = {series["metric"]["response_code"] for series in prom.query(responses.expression)}
    assert codes >= {"200", "404"}, "what reached no pool is shown with every one"


def check_rule(prom: Prometheus, rule: dict) -> None:
    """A record has data; an alert has all it looks at, whether or not it fires."""
    prom.query(rule["expr"])
    if "record" in rule:
        eventually(lambda: prom.numbers(rule["expr"]), rule["record"])
    bare = re.sub(r'"[^"]*"', "", rule["expr"])
    for name in set(re.findall(r"[a-z_:0-9]*(?:tokenweir|inference_pool|\bup\b)[a-z_:0-9]*", bare)):
        # Counters with labels have no series before the first event.
        if name != "tokenweir_config_reloads_total":
            what = f"{rule.get('alert', rule.get('record'))}: a series {name}"
            eventually(lambda name=name: prom.query(name), what)


def test_the_shipped_files_are_what_prometheus_takes():
    promtool("check", "rules", SHIPPED / "rules.yml")
    promtool("check", "config", SHIPPED / "prometheus.yml")
    promtool("test", "rules", *sorted((SHIPPED / "tests").glob("*.yml")))


def test_the_jobs_of_a_cluster_find_gateways_and_vllm_once_each(tmp_path):
    inner = yaml.safe_load((SHIPPED / "kubernetes.yaml").read_text())["data"]["prometheus.yml"]
    jobs = yaml.safe_load(inner)["scrape_configs"]
    # Debian's Prometheus does not know Kubernetes: what its discovery would find is written down.
    for job in jobs:
        assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
        job["static_configs"] = [container("gw", 8080, "http", 15090)]
        job["static_configs"] += [container("gw", 15090, "http-envoy-prom", 15090)]
        job["static_configs"] += [container("vllm", 8000, "http", 8000), container("db", 5432, "db")]
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump({"scrape_configs": jobs}))
    found = {}
    for job in jobs:
        check = ["check", "service-discovery", "--timeout=1s", config, job["job_name"]]
        targets = [target["labels"] for target in json.loads(promtool(*check)) if target.get("labels")]
        found[job["job_name"]] = {
            (labels["__address__"], labels["__metrics_path__"], labels["namespace"], labels["pod_name"])
            for labels in targets
        }
        labelled = [labels.get("app") for labels in targets]
        assert labelled == (["gw"] if job["job_name"] == "asm-envoy-stats-llm" else [None])
    gateways = {("gw:15090", "/stats/prometheus", "ai", "gw-0")}
    assert found == {
        "asm-envoy-stats-llm": gateways,
        "tokenweir": gateways,
        "vllm": {("vllm:8000", "/metrics", "ai", "vllm-0")},
    }
    kept = {job["job_name"]: job["metric_relabel_configs"][0] for job in jobs}
    assert kept["asm-envoy-stats-llm"]["regex"] == kept["tokenweir"]["regex"] == "asm_llm_.*"
    assert (kept["asm-envoy-stats-llm"]["action"], kept["tokenweir"]["action"]) == ("keep", "drop")


def container(pod: str, port: int, name: str, annotated: int | None = None) -> dict:
    """A container's port, as the discovery tells it."""
    meta = {
        "namespace": "ai",
        "pod_name": f"{pod}-0",
        "pod_label_app": pod,
        "pod_container_port_name": name,
    }
    if annotated:
        meta |= {
            "pod_annotation_prometheus_io_scrape": "true",
            "pod_annotation_prometheus_io_port": str(annotated),
            "pod_annotation_prometheus_io_path": "/metrics" if pod == "vllm" else "/stats/prometheus",
        }
    labels = {f"__meta_kubernetes_{name}": value for name, value in meta.items()}
    return {"targets": [f"{pod}:{port}"], "labels": labels}


def test_no_metric_has_a_label_that_the_tutorials_job_adds():
    ours = (REPOSITORY / "docs" / "generated" / "metrics.md").read_text()
    labels = {label.strip() for line in ours.splitlines()[4:] for label in line.split("|")[3].split(",")}
    assert not labels & {"namespace", "pod_name", "app"}


def test_every_alert_says_what_to_do_and_where_to_read_more():
    book = (REPOSITORY / "docs" / "book" / "alerts.md").read_text()
    tested = "".join(path.read_text() for path in (SHIPPED / "tests").glob("*.yml"))
    alerts = [rule for rule in rules() if "alert" in rule]
    headings = re.findall(r"^## (\w+)$", book, flags=re.MULTILINE)
    assert headings == [rule["alert"] for rule in alerts], "one section each, in their order"
    for rule in alerts:
        name, notes = rule["alert"], rule["annotations"]
        assert notes["runbook_url"] == f"docs/book/alerts.md#{name.lower()}"
        assert notes["summary"] and len(notes["description"].split(". ")) >= 2, name
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert name in tested or f'alertname="{name}"' in tested, f"{name} has no unit test"


def test_every_panel_says_what_it_shows_and_in_which_unit():
    dashboard = json.loads(DASHBOARD.read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["description"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
        assert panel["type"] == "heatmap" or panel["fieldConfig"]["defaults"]["unit"], panel["title"]


OF_ENDPOINT = "in_flight waiting running kv_usage prefill_tokens_pending predicted_ttft_seconds healthy"
OF_TIME = "time_to_first_token time_per_output_token request_duration queue pick"
OF_EVENTS = "picks refusals retries scrapes client_disconnects"
OF_POOL = "average_kv_cache_utilization average_queue_size ready_pods"
OF_ISTIO = "requests_total request_duration_milliseconds request_bytes response_bytes"
CONTRACT = [
    "asm_llm_proxy_prompt_tokens",
    "asm_llm_proxy_completion_tokens",
    *[f"istio_{name}" for name in OF_ISTIO.split()],
    *[f"tokenweir_{name}_seconds" for name in OF_TIME.split()],
    *[f"tokenweir_endpoint_{name}" for name in OF_ENDPOINT.split()],
    *[f"tokenweir_{name}_total" for name in OF_EVENTS.split()],
    *[f"inference_pool_{name}" for name in OF_POOL.split()],
]


def test_every_metric_of_the_contract_is_there():
    reference = (REPOSITORY / "docs" / "generated" / "metrics.md").read_text()
    assert [name for name in CONTRACT if f"`{name}`" not in reference] == []


def test_names_of_models_that_nobody_has_make_no_series(own):
    fleet = own(Fleet.simulated, replicas=1, speedup=100)
    gateway = own(Gateway.before, fleet)
    names = 1_000

    def series() -> set[tuple[str, str]]:
        """All but what scrapes count, which may go wrong in a new way at any time."""
        found = {(name, labels) for name, labels, _ in samples(gateway.stats)}
        return {it for it in found if not it[0].startswith("tokenweir_scrape")}

    def ask(*models: str) -> bytes:
        """The answers to requests that are sent at once, on one connection."""
        sent = ""
        for model in models:
            body = json.dumps({"model": model, "prompt": "x", "max_tokens": 1})
            sent += "POST /v1/completions HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
            sent += "connection: close\r\n" if model == models[-1] else ""
            sent += f"content-length: {len(body)}\r\n\r\n{body}"
        address = httpx.URL(gateway.url)
        with socket.create_connection((address.host, address.port), timeout=PATIENCE_SECONDS) as client:
            client.sendall(sent.encode())
            return client.makefile("rb").read()

    assert ask("sql-lora").startswith(b"HTTP/1.1 200")
    assert ask("made-up").startswith(b"HTTP/1.1 404")
    assert post(f"{gateway.url}/v1/completions", content="{").status_code == 400
    scraped = "tokenweir_endpoint_kv_usage"
    eventually(lambda: any(it[0] == scraped for it in samples(gateway.stats)), "a scrape")
    eventually(lambda: len(gateway.log()) == 3, "a record of each request")
    before = series()
    batches = [[f"model-{first + number}" for number in range(100)] for first in range(0, names, 100)]
    with ThreadPoolExecutor(8) as senders:
        for answers in senders.map(lambda batch: ask(*batch), batches):
            assert answers.count(b"HTTP/1.1 404 ") == 100

    def counted() -> float:
        found = [it for it in samples(gateway.stats) if it[0] == "istio_requests_total"]
        return sum(value for _, labels, value in found if 'model="other"' in labels)

    eventually(lambda: counted() == names + 1, "all are counted")
    assert series() - before == set()
