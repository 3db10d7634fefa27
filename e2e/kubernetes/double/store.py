"""Objects, their versions and their history, under one lock."""

from __future__ import annotations

import copy
import threading
import uuid
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

from . import kinds, patch, schema
from .errors import ApiError, already_exists, expired, invalid, modified, not_found, too_large
from .kinds import Kind
from .selectors import Selector

GRACE_SECONDS = 30
# Changes kept of each kind for watches that begin later.
HISTORY_MAX = 20_000


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class AuditEntry:
    """One request, as the audit log has it."""

    user: str
    verb: str
    group: str
    plural: str
    subresource: str
    namespace: str
    name: str
    code: int
    body: dict | list | None = None
    # Whether the object is another one after it.
    changed: bool = False

    @property
    def is_write(self) -> bool:
        return self.verb not in ("get", "list", "watch")


@dataclass(frozen=True)
class Change:
    """What became of one object."""

    revision: int
    old: dict | None
    new: dict | None
    # For a deletion: the last state with the revision of the deletion.
    last: dict | None = None

    def event(self, selector: Selector, namespace: str) -> tuple[str, dict] | None:
        """As a watch with this selector sees it."""
        some = self.new or self.old
        if namespace and some["metadata"].get("namespace") != namespace:
            return None
        before = self.old is not None and selector.matches(self.old)
        after = self.new is not None and selector.matches(self.new)
        if after:
            return ("MODIFIED" if before else "ADDED"), self.new
        if before:
            return "DELETED", self.last or _at(self.old, self.revision)
        return None


def _at(item: dict, revision: int) -> dict:
    return item | {"metadata": item["metadata"] | {"resourceVersion": str(revision)}}


@dataclass
class Options:
    """Of a write: who, and how."""

    manager: str = "unknown"
    dry_run: bool = False
    force: bool = False
    strict: bool = False
    subresource: str = ""
    # Told to the client in a `Warning` header each.
    warnings: list[str] = field(default_factory=list)


class Store:
    """Every stored object. All methods may be called from any thread."""

    def __init__(self):
        self.changed = threading.Condition(threading.RLock())
        self.revision = 1
        # Watches from before this revision are told that it is too old.
        self.oldest = 1
        self.objects: dict[tuple[str, str], dict[tuple[str, str], dict]] = {}
        self.history: dict[tuple[str, str], deque[Change]] = {}
        self.defined: dict[str, list[Kind]] = {}

    def copy(self) -> Store:
        """The same objects without their past; what happens to one is nothing to the other."""
        with self.changed:
            other = Store()
            other.revision = other.oldest = self.revision
            other.objects = {key: dict(items) for key, items in self.objects.items()}
            other.defined = dict(self.defined)
            return other

    # --- kinds

    def served(self) -> list[Kind]:
        with self.changed:
            defined = (kind for found in self.defined.values() for kind in found)
            return kinds.BUILT_IN + sorted(defined, key=kinds.priority)

    def kind(self, group: str, version: str, plural: str) -> Kind | None:
        asked = (group, version, plural)
        return next((k for k in self.served() if (k.group, k.version, k.plural) == asked), None)

    def _define(self, definition: dict) -> None:
        names = definition["spec"]["names"]
        stored = [v["name"] for v in definition["spec"]["versions"] if v.get("storage")]
        conditions = [
            {"type": kind, "status": "True", "reason": reason, "message": message}
            | {"lastTransitionTime": now()}
            for kind, reason, message in [
                ("NamesAccepted", "NoConflicts", "no conflicts found"),
                ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            ]
        ]
        definition["status"] = {"conditions": conditions, "acceptedNames": names}
        definition["status"]["storedVersions"] = stored
        self.defined[definition["metadata"]["name"]] = kinds.of_definition(definition)

    def _undefine(self, definition: dict) -> None:
        """The objects go with their definition."""
        found = self.defined.pop(definition["metadata"]["name"], [])
        for key in {kind.key for kind in found}:
            for place in list(self.objects.get(key, {})):
                self._write(key, place, None)

    # --- reading

    def get(self, kind: Kind, namespace: str, name: str) -> dict:
        with self.changed:
            found = self.objects.get(kind.key, {}).get((namespace, name))
            if found is None:
                raise not_found(kind.group, kind.plural, name)
            return _in_version(found, kind)

    def list(self, kind: Kind, namespace: str, selector: Selector, at_least: int = 0):
        """Objects in their order and the revision they are of."""
        with self.changed:
            if at_least > self.revision:
                raise too_large(at_least, self.revision)
            found = sorted(self.objects.get(kind.key, {}).items())
            items = [
                _in_version(item, kind)
                for place, item in found
                if (not namespace or place[0] == namespace) and selector.matches(item)
            ]
            return items, self.revision

    def changes_after(self, kind: Kind, revision: int) -> list[Change]:
        """Call it with the lock held."""
        if revision < self.oldest:
            raise expired(revision, self.revision)
        found: list[Change] = []
        for change in reversed(self.history.get(kind.key, ())):
            if change.revision <= revision:
                break
            found.append(change)
        found.reverse()
        return found

    def compact(self) -> None:
        """The past is forgotten; watches that are under way go on."""
        with self.changed:
            self.oldest = self.revision
            self.changed.notify_all()

    # --- writing

    def create(self, kind: Kind, namespace: str, item: dict, options: Options) -> dict:
        with self.changed:
            item = copy.deepcopy(item)
            metadata = item.setdefault("metadata", {})
            if not metadata.get("name") and metadata.get("generateName"):
                metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
            name = metadata.get("name")
            if not name:
                cause = (
                    "metadata.name",
                    "FieldValueRequired",
                    "Required value: name or generateName is required",
                )
                raise invalid(kind.group, kind.name, "", [cause])
            if metadata.get("resourceVersion"):
                raise ApiError(400, "resourceVersion should not be set on objects to be created")
            if (namespace, name) in self.objects.get(kind.key, {}):
                raise already_exists(kind.group, kind.plural, name)
            if namespace and ("", namespace) not in self.objects.get(("", "namespaces"), {}):
                raise not_found("", "namespaces", namespace)
            if kind.namespaced:
                metadata["namespace"] = namespace
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
            metadata.pop("managedFields", None)
            if "status" in kind.subresources:
                item.pop("status", None)
            _begin(kind, item)
            self._check(kind, item, options)
            self._manage(kind, None, item, options)
            return self._finish(kind, (namespace, name), item, options)

    def update(self, kind: Kind, namespace: str, name: str, item: dict, options: Options) -> dict:
        with self.changed:
            current = self.get(kind, namespace, name)
            given = item.get("metadata", {})
            if given.get("name", name) != name:
                raise ApiError(400, "the name of the object does not match the name on the URL")
            self._check_preconditions(kind, current, given)
            if kind.conditional and not given.get("resourceVersion"):
                message = "Invalid value: 0: must be specified for an update"
                cause = ("metadata.resourceVersion", "FieldValueInvalid", message)
                raise invalid(kind.group, kind.name, name, [cause])
            return self._replace(kind, current, copy.deepcopy(item), options)

    def patch(
        self, kind: Kind, namespace: str, name: str, how: str, body, options: Options
    ) -> dict:
        with self.changed:
            if how == "apply":
                return self._apply(kind, namespace, name, body, options)
            current = self.get(kind, namespace, name)
            if how == "merge":
                self._check_preconditions(kind, current, body.get("metadata") or {})
                item = patch.merge(current, body)
            else:
                item = patch.json_patch(current, body)
            return self._replace(kind, current, item, options)

    def _apply(self, kind: Kind, namespace: str, name: str, body: dict, options: Options) -> dict:
        exists = (namespace, name) in self.objects.get(kind.key, {})
        if not exists and options.subresource:
            raise not_found(kind.group, kind.plural, name)
        if not exists:
            item = copy.deepcopy(body)
            item.setdefault("metadata", {})["name"] = name
            options.force = True
            return self.create(kind, namespace, item, options)
        current = self.get(kind, namespace, name)
        self._check_preconditions(kind, current, body.get("metadata") or {})
        applied = copy.deepcopy(body)
        schema.prune(applied, kind.schema or kinds.BUILT_IN_SCHEMA)
        item = patch.apply(
            current, applied, kind.schema, options.manager, options.subresource, options.force
        )
        return self._replace(kind, current, item, options, applied)

    def delete(self, kind: Kind, namespace: str, name: str, given: dict, options: Options) -> dict:
        with self.changed:
            current = self.get(kind, namespace, name)
            self._check_preconditions(kind, current, given.get("preconditions") or {})
            grace = _grace_seconds(kind, current, given)
            if options.dry_run:
                return current
            if grace or current["metadata"].get("finalizers"):
                return self._mark_deleted(kind, current, grace)
            if kind.plural == "pods" and "deletionTimestamp" in current["metadata"]:
                self._mark_deleted(kind, current, 0)
            if kind.plural == "namespaces":
                self._empty_namespace(name)
            return self._write(kind.key, (namespace, name), None)

    def _mark_deleted(self, kind: Kind, current: dict, grace: int) -> dict:
        metadata = current["metadata"]
        if grace and "deletionTimestamp" in metadata:
            return current
        item = copy.deepcopy(current)
        when = datetime.fromtimestamp(datetime.now(UTC).timestamp() + grace, UTC)
        item["metadata"]["deletionTimestamp"] = when.strftime("%Y-%m-%dT%H:%M:%SZ")
        item["metadata"]["deletionGracePeriodSeconds"] = grace
        if "deletionTimestamp" not in metadata:
            item["metadata"]["generation"] = metadata.get("generation", 0) + 1
        return self._write(kind.key, _place(item), item)

    def _empty_namespace(self, name: str) -> None:
        """What the namespace controller would do."""
        for key, items in list(self.objects.items()):
            for place in [place for place in items if place[0] == name]:
                self._write(key, place, None)

    def _replace(
        self, kind: Kind, current: dict, item: dict, options: Options, applied: dict | None = None
    ) -> dict:
        """The object as it is after a write to it or to its status."""
        metadata = current["metadata"]
        item["apiVersion"], item["kind"] = kind.api_version, kind.name
        if options.subresource == "status":
            status = item.get("status")
            item = copy.deepcopy(current)
            item.pop("status", None)
            if status is not None:
                item["status"] = status
        else:
            new = item.setdefault("metadata", {})
            for key in ("name", "namespace", "uid", "creationTimestamp", "generation"):
                if key in metadata:
                    new[key] = metadata[key]
            for key in ("deletionTimestamp", "deletionGracePeriodSeconds"):
                new.pop(key, None)
                if key in metadata:
                    new[key] = metadata[key]
            if "status" in kind.subresources:
                item.pop("status", None)
                if "status" in current:
                    item["status"] = current["status"]
        item["metadata"].pop("managedFields", None)
        self._check(kind, item, options)
        if _changes_what_is_asked(current, item):
            item["metadata"]["generation"] = metadata.get("generation", 0) + 1
        self._manage(kind, current, item, options, applied)
        return self._finish(kind, _place(current), item, options)

    def _check(self, kind: Kind, item: dict, options: Options) -> None:
        item["apiVersion"], item["kind"] = kind.api_version, kind.name
        if kind.schema is None:
            return
        unknown = schema.prune(item, kind.schema)
        if unknown and options.strict:
            told = ", ".join(f'unknown field "{path}"' for path in unknown)
            message = f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}'
            raise ApiError(400, f"{message}: strict decoding error: {told}")
        options.warnings += [f'unknown field "{path}"' for path in unknown]
        schema.default(item, kind.schema)
        # Each write is checked for what it may change.
        checked = {key: value for key, value in item.items() if key != "metadata"}
        if options.subresource == "status":
            below = kind.schema.get("properties", {}).get("status", {})
            causes = (
                schema.validate(item.get("status"), below, "status") if item.get("status") else []
            )
        else:
            checked.pop("status", None)
            causes = schema.validate(checked, kind.schema)
        if causes:
            raise invalid(kind.group, kind.name, item["metadata"].get("name", ""), causes)

    def _check_preconditions(self, kind: Kind, current: dict, given: dict) -> None:
        metadata = current["metadata"]
        revision, uid = given.get("resourceVersion"), given.get("uid")
        stale = revision and revision != metadata["resourceVersion"]
        if stale or (uid and uid != metadata["uid"]):
            raise modified(kind.group, kind.plural, metadata["name"])

    def _manage(
        self,
        kind: Kind,
        current: dict | None,
        item: dict,
        options: Options,
        applied: dict | None = None,
    ) -> None:
        managers = patch.Managers(current)
        before = patch.managed(current, kind.schema) if current else {}
        after = patch.managed(item, kind.schema)
        differing = {path for path, value in after.items() if before.get(path, managers) != value}
        operation = "Update" if applied is None else "Apply"
        who = (options.manager, operation, options.subresource)
        fields = managers.owned(*who) | differing
        if applied is not None:
            fields = set(patch.managed(applied, kind.schema))
        managers.take(differing, who)
        for entry in managers.entries:
            entry["fields"] = entry["fields"] & after.keys()
        if fields != managers.owned(*who):
            managers.set(*who, fields & after.keys(), apiVersion=kind.api_version, time=now())
        written = managers.written()
        if written:
            item["metadata"]["managedFields"] = written

    def _finish(self, kind: Kind, place: tuple[str, str], item: dict, options: Options) -> dict:
        current = self.objects.get(kind.key, {}).get(place)
        if current and _content(current) == _content(_in_version(item, kind, current)):
            return _in_version(current, kind)
        if options.dry_run:
            item["metadata"].pop("resourceVersion", None)
            return item
        definition = kind.plural == "customresourcedefinitions"
        if definition and not options.subresource:
            self._define(item)
        done_with = item["metadata"].get("deletionTimestamp") and not item["metadata"].get(
            "finalizers"
        )
        if done_with and kind.plural != "pods":
            return self._write(kind.key, place, None)
        return self._write(kind.key, place, item)

    def _write(self, key: tuple[str, str], place: tuple[str, str], item: dict | None) -> dict:
        """Stores or deletes, and tells the watches."""
        self.revision += 1
        objects = self.objects.setdefault(key, {})
        old = objects.get(place)
        last = None
        if item is None:
            del objects[place]
            last = _at(old, self.revision)
            if key[1] == "customresourcedefinitions":
                self._undefine(old)
        else:
            item["metadata"]["resourceVersion"] = str(self.revision)
            objects[place] = item
        history = self.history.setdefault(key, deque(maxlen=HISTORY_MAX))
        if len(history) == HISTORY_MAX:
            self.oldest = max(self.oldest, history[0].revision)
        history.append(Change(self.revision, old, item, last))
        self.changed.notify_all()
        return item or last


def _place(item: dict) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _in_version(item: dict, kind: Kind, like: dict | None = None) -> dict:
    """The stored object as one of its versions; they all have the same fields."""
    version = (like or {}).get("apiVersion", kind.api_version)
    return item if item["apiVersion"] == version else item | {"apiVersion": version}


def _content(item: dict) -> dict:
    """Without what every write would change."""
    metadata = {
        key: value
        for key, value in item["metadata"].items()
        if key not in ("resourceVersion", "managedFields")
    }
    managers = [
        {key: value for key, value in entry.items() if key != "time"}
        for entry in item["metadata"].get("managedFields", ())
    ]
    return item | {"metadata": metadata, "managers": managers}


def _changes_what_is_asked(old: dict, new: dict) -> bool:
    ours = {"metadata", "status", "apiVersion", "kind"}
    return any(old.get(key) != new.get(key) for key in (old.keys() | new.keys()) - ours)


def _begin(kind: Kind, item: dict) -> None:
    """What the server itself writes into a new object."""
    if kind.key == ("", "pods"):
        item["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
        item.setdefault("spec", {}).setdefault("terminationGracePeriodSeconds", GRACE_SECONDS)
    elif kind.key == ("", "namespaces"):
        item["status"] = {"phase": "Active"}


def _grace_seconds(kind: Kind, current: dict, given: dict) -> int:
    """A Pod that runs somewhere is given time; its kubelet says when it has gone."""
    spec = current.get("spec", {})
    if kind.key != ("", "pods") or not spec.get("nodeName"):
        return 0
    asked = given.get("gracePeriodSeconds")
    return spec["terminationGracePeriodSeconds"] if asked is None else asked
