"""Patches, and who manages which field."""

from __future__ import annotations

import copy
import json

from .errors import ApiError

# Lists of built-in kinds whose items are told apart by a key.
BUILT_IN_KEYS = {
    "conditions": ["type"],
    "containers": ["name"],
    "env": ["name"],
    "volumes": ["name"],
}
Path = tuple[str, ...]


def merge(value, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(value) if isinstance(value, dict) else {}
    for key, item in patch.items():
        if item is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), item)
    return merged


def json_patch(value: dict, operations: list[dict]) -> dict:
    """RFC 6902: add, remove, replace and test."""
    value = copy.deepcopy(value)
    for step in operations:
        keys = [key.replace("~1", "/").replace("~0", "~") for key in step["path"].split("/")[1:]]
        *parents, last = keys
        holder = value
        try:
            for key in parents:
                holder = holder[int(key)] if isinstance(holder, list) else holder[key]
            _json_patch_step(holder, last, step)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            message = f"the server rejected our request due to an error in our request: {error}"
            raise ApiError(422, message) from error
    return value


def _json_patch_step(holder, key: str, step: dict) -> None:
    at = key
    if isinstance(holder, list):
        at = len(holder) if key == "-" else int(key)
    match step["op"]:
        case "add" if isinstance(holder, list):
            holder.insert(at, step["value"])
        case "add":
            holder[at] = step["value"]
        case "replace":
            holder[at]
            holder[at] = step["value"]
        case "remove":
            del holder[at]
        case "test":
            if holder[at] != step["value"]:
                raise ValueError(f"test failed: {step['path']}")
        case other:
            raise ValueError(f"unsupported operation {other}")


def _list_keys(schema: dict | None, name: str) -> list[str] | None:
    if schema is None:
        return BUILT_IN_KEYS.get(name)
    if schema.get("x-kubernetes-list-type") == "map":
        return schema.get("x-kubernetes-list-map-keys")
    return None


def _below(schema: dict | None, key: str) -> dict | None:
    if schema is None:
        return None
    others = schema.get("additionalProperties")
    return schema.get("properties", {}).get(key, others if isinstance(others, dict) else {})


def leaves(value, schema: dict | None, path: Path = ()) -> dict[Path, object]:
    """The fields that can have a manager each, as paths of `fieldsV1`, with their values."""
    if (
        isinstance(value, dict)
        and value
        and (schema or {}).get("x-kubernetes-map-type") != "atomic"
    ):
        found: dict[Path, object] = {}
        for key, item in value.items():
            found |= leaves(item, _below(schema, key), (*path, f"f:{key}"))
        return found
    keys = (
        _list_keys(schema, path[-1].removeprefix("f:"))
        if path and isinstance(value, list)
        else None
    )
    if not keys:
        return {path: value}
    found = {}
    items = None if schema is None else schema.get("items", {})
    for item in value:
        key = "k:" + json.dumps({key: item.get(key) for key in keys}, separators=(",", ":"))
        found |= leaves(item, items, (*path, key))
    return found


def managed(item: dict, schema: dict | None) -> dict[Path, object]:
    """The leaves of what managers share; the server's own fields are nobody's."""
    content = {
        key: value for key, value in item.items() if key not in ("apiVersion", "kind", "metadata")
    }
    metadata = {k: v for k, v in item.get("metadata", {}).items() if k in ("labels", "annotations")}
    found = leaves({"metadata": metadata}, None) if any(metadata.values()) else {}
    return (found | leaves(content, schema)) if content else found


def to_fields(paths) -> dict:
    tree: dict = {}
    for path in sorted(paths):
        node = tree
        for part in path:
            node = node.setdefault(part, {})
    return tree


def from_fields(tree: dict, path: Path = ()) -> set[Path]:
    if not tree:
        return {path} if path else set()
    return {leaf for key, below in tree.items() for leaf in from_fields(below, (*path, key))}


class Managers:
    """`metadata.managedFields` as sets of paths."""

    def __init__(self, item: dict | None):
        entries = (item or {}).get("metadata", {}).get("managedFields") or []
        self.entries = [
            dict(entry) | {"fields": from_fields(entry["fieldsV1"])} for entry in entries
        ]

    def owned(self, manager: str, operation: str, subresource: str) -> set[Path]:
        entry = self._entry(manager, operation, subresource)
        return set(entry["fields"]) if entry else set()

    def _entry(self, manager: str, operation: str, subresource: str) -> dict | None:
        key = (manager, operation, subresource)
        for entry in self.entries:
            if (entry["manager"], entry["operation"], entry.get("subresource", "")) == key:
                return entry
        return None

    def others(self, manager: str, operation: str, subresource: str) -> list[dict]:
        mine = self._entry(manager, operation, subresource)
        return [entry for entry in self.entries if entry is not mine]

    def set(
        self, manager: str, operation: str, subresource: str, fields: set[Path], **facts
    ) -> None:
        entry = self._entry(manager, operation, subresource)
        if not entry:
            entry = {"manager": manager, "operation": operation}
            if subresource:
                entry["subresource"] = subresource
            self.entries.append(entry)
        entry |= facts | {"fieldsType": "FieldsV1", "fields": fields}

    def take(self, fields: set[Path], but: tuple[str, str, str]) -> None:
        """The fields have a new manager."""
        for entry in self.others(*but):
            entry["fields"] = entry["fields"] - fields

    def written(self) -> list[dict]:
        entries = []
        for entry in self.entries:
            if entry["fields"]:
                entry = dict(entry)
                entry["fieldsV1"] = to_fields(entry.pop("fields"))
                entries.append(entry)
        return entries


def apply(
    current: dict, applied: dict, schema: dict | None, manager: str, subresource: str, force: bool
) -> dict:
    """Server-side apply: the object it makes, without new `managedFields`; 409 on conflicts."""
    managers = Managers(current)
    wanted = managed(applied, schema)
    live = managed(current, schema)
    differing = {path for path, value in wanted.items() if live.get(path) != value}
    conflicts = []
    for entry in managers.others(manager, "Apply", subresource):
        for path in sorted(differing & entry["fields"] & live.keys()):
            suffix = (
                f' with subresource "{entry["subresource"]}"' if entry.get("subresource") else ""
            )
            conflicts.append((f'conflict with "{entry["manager"]}"{suffix}', _dotted(path)))
    if conflicts and not force:
        raise _conflict(conflicts)
    result = copy.deepcopy(current)
    for path in managers.owned(manager, "Apply", subresource) - wanted.keys():
        shared = any(
            path in entry["fields"] for entry in managers.others(manager, "Apply", subresource)
        )
        if not shared:
            _remove(result, path)
    for path, value in wanted.items():
        _put(result, path, copy.deepcopy(value))
    return result


def _conflict(conflicts: list[tuple[str, str]]) -> ApiError:
    causes = [{"reason": "FieldManagerConflict", "message": m, "field": f} for m, f in conflicts]
    told = ", ".join(f"{message}: {field}" for message, field in conflicts)
    plural = "conflict" if len(conflicts) == 1 else "conflicts"
    return ApiError(
        409, f"Apply failed with {len(conflicts)} {plural}: {told}", details={"causes": causes}
    )


def _dotted(path: Path) -> str:
    return "".join(f".{part[2:]}" if part.startswith("f:") else f"[{part[2:]}]" for part in path)


def _item_of(holder: list, part: str) -> dict | None:
    key = json.loads(part[2:])
    return next((item for item in holder if {k: item.get(k) for k in key} == key), None)


def _put(value: dict, path: Path, leaf) -> None:
    holder = value
    for part, following in zip(path, (*path[1:], None), strict=True):
        if part.startswith("k:"):
            found = _item_of(holder, part)
            if found is None:
                found = json.loads(part[2:])
                holder.append(found)
            holder = found
        elif following is None:
            holder[part[2:]] = leaf
        else:
            empty = [] if following.startswith("k:") else {}
            holder = holder.setdefault(part[2:], empty)


def _remove(value: dict, path: Path) -> None:
    holder, parents = value, []
    for part in path[:-1]:
        parents.append((holder, part))
        holder = _item_of(holder, part) if part.startswith("k:") else holder.get(part[2:])
        if holder is None:
            return
    if path[-1].startswith("f:") and isinstance(holder, dict):
        holder.pop(path[-1][2:], None)
    for parent, part in reversed(parents):
        key = part[2:]
        if part.startswith("f:") and parent.get(key) in ({}, []):
            del parent[key]
        elif part.startswith("k:"):
            item = _item_of(parent, part)
            if item is not None and item == json.loads(key):
                parent.remove(item)
