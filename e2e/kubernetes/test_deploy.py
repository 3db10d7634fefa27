"""What deploy/ ships: whole, listed, and as its text says. Nothing is started."""

from __future__ import annotations

import re

import pytest
import yaml
from cluster import documents, kustomized
from harness import REPOSITORY, run

DEPLOY = REPOSITORY / "deploy"
FOLDERS = sorted(path.parent for path in DEPLOY.rglob("kustomization.yaml"))
# A kind of its own, which the kustomization says why it leaves out.
APART = {"inference.networking.k8s.io_inferencepools.yaml"}
# What is in Grafana's folder is in Grafana's own form.
FILES = sorted(set(DEPLOY.rglob("*.yaml")) - set((DEPLOY / "grafana").rglob("*.yaml")))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_document_is_an_object(path):
    found = documents(path)
    assert found
    for item in found:
        assert item["apiVersion"]
        assert item["kind"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_a_kustomization_lists_exactly_its_files(folder):
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert all((folder / name).exists() for name in listed)
    files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"} - APART
    assert {name for name in listed if (folder / name).is_file()} == files


def base(kind: str) -> dict:
    (found,) = (i for i in kustomized(DEPLOY / "kustomize" / "base") if i["kind"] == kind)
    return found


def container() -> dict:
    (found,) = base("Deployment")["spec"]["template"]["spec"]["containers"]
    return found


def test_the_tutorials_scrape_job_finds_the_metrics():
    """Its relabelling keeps ports by name and takes the address from an annotation."""
    template = base("Deployment")["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    named = [p for p in container()["ports"] if re.fullmatch(".*-envoy-prom", p["name"])]
    assert [(p["name"], p["containerPort"]) for p in named] == [("http-envoy-prom", 15090)]
    joined = f"10.0.0.1:15090;{annotations['prometheus.io/port']}"
    assert re.fullmatch(r"([^:]+)(?::\d+)?;(\d+)", joined)
    assert annotations["prometheus.io/scrape"] == "true"
    assert annotations["prometheus.io/path"] == "/stats/prometheus"


def test_there_is_time_to_drain():
    template = base("Deployment")["spec"]["template"]["spec"]
    drain = next(a for a in container()["args"] if a.startswith("--drain-timeout="))
    drain = int(re.fullmatch(r"--drain-timeout=(\d+)s", drain)[1])
    pause = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert template["terminationGracePeriodSeconds"] > drain + pause


def test_the_gateway_may_do_no_more_than_it_needs():
    template = base("Deployment")["spec"]["template"]["spec"]
    assert template["securityContext"]["runAsNonRoot"] is True
    assert template["securityContext"]["runAsUser"] > 0
    assert template["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    role = base("ClusterRole")
    assert "*" not in str(role["rules"])
    account = base("ServiceAccount")["metadata"]
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        (subject,) = base(kind)["subjects"]
        assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"])


def test_a_replica_can_go_and_the_rest_serve():
    deployment = base("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["replicas"] >= 2
    assert base("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        base("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        base("Service")["spec"]["selector"],
    ):
        assert selector.items() <= labels.items()


def test_probes_and_ports_agree():
    names = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert names["status-port"] == 15021
    for probe, path in (("readinessProbe", "/healthz/ready"), ("livenessProbe", "/healthz/live")):
        assert container()[probe]["httpGet"] == {"path": path, "port": "status-port"}


def test_the_demo_has_the_tutorials_names():
    """So that its steps work on it as they are."""
    seed = documents(REPOSITORY / "examples" / "seed" / "vllm-service.yaml")
    for kind in ("Service", "Deployment"):
        (theirs,) = (item for item in seed if item["kind"] == kind)
        demo = documents(DEPLOY / "kustomize" / "demo" / "vllm-service.yaml")
        (ours,) = (item for item in demo if item["kind"] == kind)
        assert ours["metadata"]["name"] == theirs["metadata"]["name"]
        assert ours["spec"]["selector"] == theirs["spec"]["selector"]


def test_every_command_line_in_deploy_is_one_the_binary_takes():
    for folder in (DEPLOY / "kustomize" / "gateway", DEPLOY / "kustomize" / "demo"):
        for path in folder.glob("*.yaml"):
            for item in documents(path):
                if item["kind"] != "Deployment":
                    continue
                for found in item["spec"]["template"]["spec"]["containers"]:
                    # With --help behind it, a command line is read and nothing is done.
                    done = run(*found["args"], "--help")
                    assert done.returncode == 0, done.stderr
