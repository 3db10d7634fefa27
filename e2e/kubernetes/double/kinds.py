"""What is served: the built-in kinds a gateway meets, and those of stored definitions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

VERBS = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
# Every field is kept: what built-in kinds may have is not checked.
BUILT_IN_SCHEMA = {"x-kubernetes-preserve-unknown-fields": True}


@dataclass(frozen=True)
class Kind:
    """One resource in one version."""

    group: str
    version: str
    plural: str
    name: str
    namespaced: bool = True
    # Subresources, such as status.
    subresources: tuple[str, ...] = ()
    # None for built-in kinds, whose fields are not checked.
    schema: dict | None = field(default=None, compare=False, hash=False)
    columns: tuple = field(default=(), compare=False, hash=False)
    short_names: tuple[str, ...] = ()
    # Whether a PUT needs a resourceVersion.
    conditional: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        return self.name.lower()

    @property
    def key(self) -> tuple[str, str]:
        """Objects are stored once for all versions."""
        return self.group, self.plural


def _core(plural: str, name: str, *subresources: str, namespaced: bool = True) -> Kind:
    short = {"namespaces": ("ns",), "pods": ("po",), "services": ("svc",)}.get(plural, ())
    return Kind("", "v1", plural, name, namespaced, subresources, short_names=short)


RBAC = "rbac.authorization.k8s.io"
BUILT_IN = [
    _core("namespaces", "Namespace", "status", "finalize", namespaced=False),
    _core("nodes", "Node", "status", namespaced=False),
    _core("pods", "Pod", "status"),
    _core("services", "Service", "status"),
    _core("secrets", "Secret"),
    _core("configmaps", "ConfigMap"),
    _core("serviceaccounts", "ServiceAccount", "token"),
    _core("events", "Event"),
    _core("endpoints", "Endpoints"),
    Kind("apps", "v1", "deployments", "Deployment", subresources=("status",)),
    Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", subresources=("status",)),
    Kind("coordination.k8s.io", "v1", "leases", "Lease", conditional=True),
    Kind("events.k8s.io", "v1", "events", "Event"),
    Kind(RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False),
    Kind(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Kind(RBAC, "v1", "roles", "Role"),
    Kind(RBAC, "v1", "rolebindings", "RoleBinding"),
    Kind(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        namespaced=False,
        subresources=("status",),
    ),
]


def priority(kind: Kind) -> tuple:
    """Order of discovery: groups by name, of each the stable and the newer version first."""
    found = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", kind.version)
    if not found:
        return kind.group, 3, kind.version
    major, stage, minor = found.groups()
    return kind.group, {None: 0, "beta": 1, "alpha": 2}[stage], -int(major), -int(minor or 0)


def of_definition(definition: dict) -> list[Kind]:
    """The kinds a CustomResourceDefinition makes served."""
    spec = definition["spec"]
    names = spec["names"]
    return [
        Kind(
            group=spec["group"],
            version=version["name"],
            plural=names["plural"],
            name=names["kind"],
            namespaced=spec["scope"] == "Namespaced",
            subresources=tuple(version.get("subresources", {})),
            schema=version.get("schema", {}).get("openAPIV3Schema", {}),
            columns=tuple(version.get("additionalPrinterColumns", ())),
            short_names=tuple(names.get("shortNames", ())),
            conditional=True,
        )
        for version in spec["versions"]
        if version.get("served", True)
    ]


def resource_list(group_version: str, kinds: list[Kind]) -> dict:
    """Answer to GET /apis/GROUP/VERSION."""
    resources = []
    for kind in kinds:
        entry = {"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced}
        entry |= {"kind": kind.name, "verbs": VERBS}
        if kind.short_names:
            entry["shortNames"] = list(kind.short_names)
        resources.append(entry)
        for subresource in kind.subresources:
            entry = {"name": f"{kind.plural}/{subresource}", "singularName": ""}
            entry |= {"namespaced": kind.namespaced, "kind": kind.name}
            resources.append(entry | {"verbs": ["get", "patch", "update"]})
    answer = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version}
    return answer | {"resources": resources}


def group(name: str, versions: list[str]) -> dict:
    versions = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def aggregated(kinds: list[Kind], core: bool) -> dict:
    """Discovery in one answer, as clients ask for it with `as=APIGroupDiscoveryList`."""
    items: dict[str, dict] = {}
    for kind in kinds:
        if (kind.group == "") != core:
            continue
        item = items.setdefault(kind.group, {"metadata": {"name": kind.group}, "versions": []})
        version = next((v for v in item["versions"] if v["version"] == kind.version), None)
        if not version:
            version = {"version": kind.version, "resources": [], "freshness": "Current"}
            item["versions"].append(version)
        response_kind = {"group": kind.group, "version": kind.version, "kind": kind.name}
        version["resources"].append(
            {
                "resource": kind.plural,
                "responseKind": response_kind,
                "scope": "Namespaced" if kind.namespaced else "Cluster",
                "singularResource": kind.singular,
                "shortNames": list(kind.short_names),
                "verbs": VERBS,
                "subresources": [
                    {"subresource": name, "responseKind": response_kind, "verbs": VERBS[2:3]}
                    for name in kind.subresources
                ],
            }
        )
    answer = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2"}
    return answer | {"metadata": {}, "items": list(items.values())}
