"""The API server of a test and what kubectl, kubelets and other controllers do there."""

from __future__ import annotations

import base64
import copy
import functools
import json
import os
import random
import ssl
import tempfile
from pathlib import Path

import httpx
import pytest
import yaml
from double import ApiServer
from double.store import Store
from harness import PATIENCE_SECONDS, REPOSITORY, eventually, free_ports

CONTROLLER = "tokenweir.dev/gateway-controller"
NODE = "stand-in"
# Definitions of kinds that are not ours to define, with fields unchecked.
FOREIGN = Path(__file__).parent / "testdata" / "foreign-crds.yaml"
SYSTEM = "tokenweir-system"
ACCOUNT = "tokenweir"
MERGE = "application/merge-patch+json"


@functools.cache
def _parsed(path: Path) -> list[dict]:
    # The loader in C is ten times as fast, where it was built.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(path.read_text(), loader) if document]


def documents(path: Path) -> list[dict]:
    return copy.deepcopy(_parsed(path))


def kustomized(folder: Path) -> list[dict]:
    """The objects of a kustomization's own files, in its namespace."""
    kustomization = documents(folder / "kustomization.yaml")[0]
    found = []
    for name in kustomization["resources"]:
        if (folder / name).is_dir():
            found += kustomized((folder / name).resolve())
        else:
            found += documents(folder / name)
    namespace = kustomization.get("namespace")
    for item in found:
        scoped = item["kind"] in ("Namespace", "ClusterRole", "ClusterRoleBinding")
        if namespace and not scoped and item["kind"] != "CustomResourceDefinition":
            item["metadata"]["namespace"] = namespace
    return found


class Cluster:
    """An API server and one namespace of it, as its administrator."""

    def __init__(self, folder: Path, config: dict, double: ApiServer | None = None):
        self.folder, self.double = folder, double
        self.client, self._config = _client(config)
        self.namespace = f"test-{random.randrange(16**8):08x}"
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}
        self._made: list[tuple[dict, str]] = []

    @classmethod
    def of_double(cls, folder: Path, store: Store | None = None) -> Cluster:
        # Not a port that a connection could take while it is away.
        double = ApiServer(port=free_ports(1)[0], store=store)
        path = double.kubeconfig(folder / "admin.json")
        return cls(folder, json.loads(path.read_text()), double)

    @classmethod
    def of_kubeconfig(cls, folder: Path, path: str) -> Cluster:
        return cls(folder, yaml.safe_load(Path(path).read_text()))

    # --- requests

    def ask(self, method: str, path: str, body=None, media: str = "application/json", **query):
        """Its answer, or the failure as an `httpx.HTTPStatusError`."""
        headers = {"content-type": media} if body is not None else {}
        content = json.dumps(body) if body is not None else None
        response = self.client.request(
            method, path, content=content, headers=headers, params=query or None
        )
        if response.status_code >= 400:
            message = f"{method} {path}: {response.status_code} {response.text}"
            raise httpx.HTTPStatusError(message, request=response.request, response=response)
        return response.json()

    def resource(self, api_version: str, kind: str) -> tuple[str, bool]:
        """Plural and whether it is in namespaces; found out by discovery."""
        if (api_version, kind) not in self._plurals:
            found = self.ask("GET", f"{_root(api_version)}")
            for resource in found["resources"]:
                if "/" not in resource["name"]:
                    key = (api_version, resource["kind"])
                    self._plurals[key] = resource["name"], resource["namespaced"]
        return self._plurals[api_version, kind]

    def path(self, api_version: str, kind: str, name: str = "", namespace: str = "") -> str:
        plural, namespaced = self.resource(api_version, kind)
        path = _root(api_version)
        if namespaced:
            path += f"/namespaces/{namespace or self.namespace}"
        return f"{path}/{plural}/{name}".rstrip("/")

    def serves(self, api_version: str, plural: str) -> bool:
        try:
            found = self.ask("GET", _root(api_version))
        except httpx.HTTPStatusError as error:
            if error.response.status_code == 404:
                return False
            raise
        return any(resource["name"] == plural for resource in found["resources"])

    def serves_group(self, group: str) -> bool:
        return not group or any(g["name"] == group for g in self.ask("GET", "/apis")["groups"])

    # --- as kubectl

    def apply(self, manifest: dict, namespace: str = "", as_it_is: bool = False) -> dict:
        """Creates the object, or merges the manifest into the one there is.

        A pool gets a picker that nobody uses, where the cluster's definition demands one.
        """
        manifest = copy.deepcopy(manifest)
        if manifest["kind"] == "InferencePool" and not as_it_is:
            manifest["spec"] |= self._demanded_picker(manifest)
        place = manifest["metadata"].get("namespace") or namespace
        of = (manifest["apiVersion"], manifest["kind"])
        path = self.path(*of, namespace=place)
        try:
            made = self.ask("POST", path, manifest)
            self._made.append((manifest, place))
            return made
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 409:
                raise
        name = manifest["metadata"]["name"]
        return self.ask("PATCH", f"{path}/{name}", manifest, MERGE)

    def _demanded_picker(self, pool: dict) -> dict:
        """By the definition: most of upstream's releases cannot do without."""
        group, version = pool["apiVersion"].split("/")
        name = f"inferencepools.{group}"
        found = self.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", name)
        served = next(v for v in found["spec"]["versions"] if v["name"] == version)
        spec = served["schema"]["openAPIV3Schema"]["properties"]["spec"]
        pickers = {
            "extensionRef": {"name": "picker"},
            "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
        }
        required = spec.get("required", ())
        return {key: value for key, value in pickers.items() if key in required}

    def apply_file(self, path: Path, namespace: str = "") -> list[dict]:
        return [self.apply(document, namespace) for document in documents(path)]

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> dict:
        return self.ask("GET", self.path(api_version, kind, name, namespace))

    def find(self, api_version: str, kind: str, name: str, namespace: str = "") -> dict | None:
        try:
            return self.get(api_version, kind, name, namespace)
        except httpx.HTTPStatusError as error:
            if error.response.status_code == 404:
                return None
            raise

    def patch(self, item: dict, patch: dict, subresource: str = "") -> dict:
        metadata = item["metadata"]
        of = (item["apiVersion"], item["kind"], metadata["name"], metadata.get("namespace", ""))
        path = self.path(*of)
        return self.ask("PATCH", f"{path}/{subresource}".rstrip("/"), patch, MERGE)

    def delete(self, item: dict, **query) -> None:
        metadata = item["metadata"]
        of = (item["apiVersion"], item["kind"], metadata["name"], metadata.get("namespace", ""))
        try:
            self.ask("DELETE", self.path(*of), **query)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 404:
                raise

    def table(self, api_version: str, kind: str, name: str) -> dict[str, object]:
        """What `kubectl get` shows: cells by the names of their columns."""
        accept = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        response = self.client.get(self.path(api_version, kind, name), headers=accept)
        response.raise_for_status()
        table = response.json()
        columns = [column["name"] for column in table["columnDefinitions"]]
        return dict(zip(columns, table["rows"][0]["cells"], strict=True))

    # --- what is there before a test

    def prepare(self) -> None:
        """What every test needs: the kinds, and the permissions of deploy/."""
        self.define(documents(FOREIGN))
        folder = REPOSITORY / "deploy" / "crds"
        self.define([d for path in sorted(folder.glob("*_*.yaml")) for d in documents(path)])
        self.make_namespace(SYSTEM)
        for item in kustomized(REPOSITORY / "deploy" / "kustomize" / "gateway"):
            if item["kind"] == "ServiceAccount" or item["apiVersion"].startswith("rbac."):
                self.apply(item)

    def begin(self) -> None:
        """A namespace of the test's own; the lease of a test before is none of this one's."""
        self.make_namespace(self.namespace)
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        self.delete(lease | {"metadata": {"name": ACCOUNT, "namespace": SYSTEM}})

    def define(self, definitions: list[dict]) -> None:
        """Makes kinds served that are not; a cluster that has its own definitions keeps them."""
        for definition in definitions:
            spec = definition["spec"]
            plural = spec["names"]["plural"]
            versions = [f"{spec['group']}/{version['name']}" for version in spec["versions"]]
            if not any(self.serves(version, plural) for version in versions):
                self.apply(definition)
                for version in versions:
                    eventually(
                        lambda v=version, p=plural: self.serves(v, p), f"{plural} of {version}"
                    )

    def make_namespace(self, name: str) -> None:
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        # Where no controller makes it, Pods would be refused.
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        self.apply(account, name)

    def gateway_kubeconfig(self, account: str = ACCOUNT, namespace: str = SYSTEM) -> Path:
        """For a gateway with the permissions of a service account."""
        path = self.path("v1", "ServiceAccount", account, namespace)
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token = self.ask("POST", f"{path}/token", request)["status"]["token"]
        config = copy.deepcopy(self._config)
        config["users"] = [{"name": "gateway", "user": {"token": token}}]
        cluster = config["clusters"][0]["name"]
        context = {"cluster": cluster, "user": "gateway", "namespace": SYSTEM}
        config["contexts"] = [{"name": "gateway", "context": context}]
        config["current-context"] = "gateway"
        file = self.folder / f"{account}.json"
        file.write_text(json.dumps(config))
        return file

    def stop(self) -> None:
        if self.double:
            self.client.close()
            self.double.stop()
            return
        for manifest, place in reversed(self._made):
            keep = manifest["kind"] == "CustomResourceDefinition"
            if not keep and manifest["metadata"].get("name") != SYSTEM:
                metadata = manifest["metadata"] | ({"namespace": place} if place else {})
                self.delete(manifest | {"metadata": metadata}, gracePeriodSeconds=0)
        self.client.close()

    # --- as kubelets do

    def pod(self, name: str, address: str, labels: dict, namespace: str = "", **more) -> Pod:
        return Pod(self, name, address, labels, namespace or self.namespace, **more)

    # --- statuses

    def conditions(self, item: dict) -> dict[str, dict]:
        """Conditions by type, wherever this version has them; ours only."""
        item = self.get(
            item["apiVersion"],
            item["kind"],
            item["metadata"]["name"],
            item["metadata"].get("namespace", ""),
        )
        return conditions_of(item)

    def wait_for(self, item: dict, condition: str, status: str = "True", reason: str = "") -> dict:
        """As the tutorial waits: until the condition is there."""

        def found():
            seen = self.conditions(item).get(condition, {})
            fits = seen.get("status") == status and reason in ("", seen.get("reason"))
            return seen if fits else None

        what = f"{condition}={status} {reason} of {item['kind']} {item['metadata']['name']}"
        return eventually(found, what)

    def wait_until_ready(self, item: dict) -> None:
        self.wait_for(item, "Accepted")
        self.wait_for(item, "ResolvedRefs")


def conditions_of(item: dict) -> dict[str, dict]:
    status = item.get("status") or {}
    found = list(status.get("conditions") or ())
    for field in ("parent", "parents", "ancestors"):
        for entry in status.get(field) or ():
            if entry.get("controllerName", CONTROLLER) == CONTROLLER:
                found += entry.get("conditions") or ()
    return {condition["type"]: condition for condition in found}


class Pod:
    """A Pod as its kubelet would report it."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        address: str,
        labels: dict,
        namespace: str,
        ready: bool = True,
        annotations: dict | None = None,
        port: int = 8000,
    ):
        self.cluster, self.name, self.address, self.namespace = cluster, name, address, namespace
        metadata = {"name": name, "labels": labels, "annotations": annotations or {}}
        container = {"name": "server", "image": "example.invalid/server"}
        container["ports"] = [{"name": "http", "containerPort": port}]
        spec = {"nodeName": NODE, "containers": [container], "terminationGracePeriodSeconds": 3600}
        spec["automountServiceAccountToken"] = False
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        self.item = cluster.apply(manifest, namespace)
        self.item |= {"apiVersion": "v1", "kind": "Pod"}
        self.report(address, ready)

    def report(self, address: str, ready: bool) -> None:
        time = "2026-01-01T00:00:00Z"
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": time}
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        self.cluster.patch(self.item, {"status": status | {"conditions": [condition]}}, "status")

    def set_ready(self, ready: bool) -> None:
        self.report(self.address, ready)

    def label(self, labels: dict) -> None:
        self.cluster.patch(self.item, {"metadata": {"labels": labels}})

    def annotate(self, annotations: dict) -> None:
        self.cluster.patch(self.item, {"metadata": {"annotations": annotations}})

    def begin_deletion(self) -> None:
        """It has its time of grace; nothing new should come."""
        self.cluster.delete(self.item)

    def end_deletion(self) -> None:
        """Its kubelet says that it is gone."""
        self.cluster.delete(self.item, gracePeriodSeconds=0)


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _client(config: dict) -> tuple[httpx.Client, dict]:
    """A client for the current context, and that context with everything in it."""
    context = _named(config["contexts"], config["current-context"])["context"]
    cluster = _named(config["clusters"], context["cluster"])["cluster"]
    user = _named(config["users"], context["user"])["user"]
    tls = ssl.create_default_context(
        cafile=cluster.get("certificate-authority"),
        cadata=_data(cluster, "certificate-authority-data"),
    )
    if cluster.get("insecure-skip-tls-verify"):
        tls = ssl._create_unverified_context()
    certificate = [_file(user, "client-certificate"), _file(user, "client-key")]
    if all(certificate):
        tls.load_cert_chain(*certificate)
    headers = {"authorization": f"Bearer {user['token']}"} if "token" in user else {}
    client = httpx.Client(base_url=cluster["server"], verify=tls, headers=headers, timeout=PATIENCE_SECONDS)
    cluster = {"name": context["cluster"], "cluster": cluster}
    return client, {"apiVersion": "v1", "kind": "Config", "clusters": [cluster]}


def _named(entries: list[dict], name: str) -> dict:
    return next(entry for entry in entries if entry["name"] == name)


def _data(holder: dict, key: str) -> str | None:
    return base64.b64decode(holder[key]).decode() if key in holder else None


def _file(holder: dict, key: str) -> str | None:
    data = _data(holder, f"{key}-data")
    if data is None:
        return holder.get(key)
    handle, path = tempfile.mkstemp()
    with os.fdopen(handle, "w") as file:
        file.write(data)
    return path


def apply_or_skip(cluster: Cluster, item: dict, field: str, **more) -> dict:
    """Where the cluster's definition is of a release that knows the field otherwise."""
    try:
        return cluster.apply(item, **more)
    except httpx.HTTPStatusError as error:
        if error.response.status_code == 422 and field in error.response.text:
            pytest.skip(f"this cluster's {item['kind']} refuses this {field}")
        raise


def skip_unless_served(cluster: Cluster, api_version: str, plural: str) -> None:
    if not cluster.serves(api_version, plural):
        pytest.skip(f"this cluster does not serve {plural} of {api_version}")
