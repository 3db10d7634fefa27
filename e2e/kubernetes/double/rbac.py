"""Who may do what: roles and bindings as stored, and the tokens handed out."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from .errors import ApiError, qualified
from .kinds import RBAC

ADMIN = "kubernetes-admin"


@dataclass(frozen=True)
class Request:
    """What RBAC knows of a request."""

    verb: str
    group: str
    plural: str
    subresource: str
    namespace: str
    name: str

    def forbidden(self, user: str) -> ApiError:
        resource = f"{self.plural}/{self.subresource}" if self.subresource else self.plural
        where = f'in the namespace "{self.namespace}"' if self.namespace else "at the cluster scope"
        what = f'User "{user}" cannot {self.verb} resource "{resource}"'
        what += f' in API group "{self.group}" {where}'
        about = qualified(self.group, self.plural)
        if self.name:
            about += f' "{self.name}"'
        details = {"group": self.group, "kind": self.plural}
        if self.name:
            details["name"] = self.name
        return ApiError(403, f"{about} is forbidden: {what}", details=details)


class Tokens:
    """Bearer tokens and whose they are."""

    def __init__(self):
        self.admin = secrets.token_urlsafe(16)
        self._users = {self.admin: ADMIN}

    def issue(self, user: str) -> str:
        token = secrets.token_urlsafe(16)
        self._users[token] = user
        return token

    def user(self, header: str | None) -> str:
        user = self._users.get((header or "").removeprefix("Bearer "))
        if not user:
            raise ApiError(401, "Unauthorized")
        return user


def service_account(namespace: str, name: str) -> str:
    return f"system:serviceaccount:{namespace}:{name}"


def allowed(store, user: str, request: Request) -> bool:
    """By the bindings of the cluster, and those of the request's namespace."""
    if user == ADMIN:
        return True
    with store.changed:
        stored = {plural: store.objects.get((RBAC, plural), {}) for plural in PLURALS}
        for binding in stored["clusterrolebindings"].values():
            if _binds(binding, user) and _permits(_rules(stored, binding, ""), request):
                return True
        for (namespace, _), binding in stored["rolebindings"].items():
            inside = request.namespace and namespace == request.namespace
            if inside and _binds(binding, user):
                if _permits(_rules(stored, binding, namespace), request):
                    return True
    return False


PLURALS = ("clusterroles", "roles", "clusterrolebindings", "rolebindings")


def _binds(binding: dict, user: str) -> bool:
    for subject in binding.get("subjects") or ():
        name, namespace = subject["name"], subject.get("namespace", "")
        if subject["kind"] == "ServiceAccount" and service_account(namespace, name) == user:
            return True
        if subject["kind"] == "User" and name == user:
            return True
    return False


def _rules(stored: dict, binding: dict, namespace: str) -> list[dict]:
    reference = binding["roleRef"]
    if reference["kind"] == "ClusterRole":
        role = stored["clusterroles"].get(("", reference["name"]))
    else:
        role = stored["roles"].get((namespace, reference["name"]))
    return (role or {}).get("rules") or []


def _permits(rules: list[dict], request: Request) -> bool:
    resource = request.plural
    if request.subresource:
        resource += f"/{request.subresource}"

    def has(rule: dict, key: str, value: str) -> bool:
        return "*" in rule.get(key, ()) or value in rule.get(key, ())

    for rule in rules:
        names = rule.get("resourceNames")
        if (
            has(rule, "verbs", request.verb)
            and has(rule, "apiGroups", request.group)
            and has(rule, "resources", resource)
            and (not names or request.name in names)
        ):
            return True
    return False
