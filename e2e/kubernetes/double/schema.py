"""Structural schemas: pruning, defaults, validation. CEL rules are not evaluated."""

from __future__ import annotations

import copy
import re
from datetime import datetime

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}
# Kept whatever a schema says.
METADATA = ("apiVersion", "kind", "metadata")


def prune(value, schema: dict, path: str = "") -> list[str]:
    """Takes unknown fields out, in place, and returns their paths."""
    unknown: list[str] = []
    if isinstance(value, list):
        for index, item in enumerate(value):
            unknown += prune(item, schema.get("items", {}), f"{path}[{index}]")
    if not isinstance(value, dict):
        return unknown
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    keeps = schema.get("x-kubernetes-preserve-unknown-fields") or others is True
    for key in list(value):
        below = f"{path}.{key}" if path else key
        if not path and key in METADATA:
            continue
        if key in properties:
            unknown += prune(value[key], properties[key], below)
        elif isinstance(others, dict):
            unknown += prune(value[key], others, below)
        elif not keeps:
            unknown.append(below)
            del value[key]
    return unknown


def default(value, schema: dict) -> None:
    """Fills in defaults, in place."""
    if isinstance(value, list):
        for item in value:
            default(item, schema.get("items", {}))
    if not isinstance(value, dict):
        return
    for key, below in schema.get("properties", {}).items():
        if "default" in below and value.get(key) is None:
            value[key] = copy.deepcopy(below["default"])
        if key in value:
            default(value[key], below)
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        for key in value.keys() - schema.get("properties", {}).keys():
            default(value[key], others)


def validate(value, schema: dict, path: str = "") -> list[tuple[str, str, str]]:
    """What does not fit: field, reason, message."""
    if schema.get("x-kubernetes-int-or-string"):
        return [] if isinstance(value, (int, str)) else [_typed(value, path, "integer or string")]
    if value is None and schema.get("nullable"):
        return []
    kind = schema.get("type")
    fits = isinstance(value, TYPES.get(kind, object))
    if kind and (not fits or (isinstance(value, bool) and kind != "boolean")):
        return [_typed(value, path, kind)]
    found = _validate_plain(value, schema, path)
    if isinstance(value, dict):
        found += _validate_object(value, schema, path)
    if isinstance(value, list):
        found += _validate_list(value, schema, path)
    return found


def _typed(value, path: str, kind: str) -> tuple[str, str, str]:
    message = f"Invalid value: {value!r}: {path} in body must be of type {kind}"
    return path, "FieldValueTypeInvalid", message


def _validate_plain(value, schema: dict, path: str) -> list[tuple[str, str, str]]:
    found = []

    def wrong(message: str, reason: str = "FieldValueInvalid") -> None:
        found.append((path, reason, message))

    words = schema.get("enum")
    if words and value not in words:
        supported = ", ".join(f'"{word}"' for word in words)
        wrong(
            f'Unsupported value: "{value}": supported values: {supported}', "FieldValueNotSupported"
        )
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            wrong(f"Invalid value: {value!r}: {path} in body should match '{schema['pattern']}'")
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            wrong(f"Invalid value: {value!r}: {path} in body has a wrong length")
        if schema.get("format") == "date-time" and not _is_time(value):
            wrong(
                f"Invalid value: {value!r}: {path} must be of type date-time",
                "FieldValueTypeInvalid",
            )
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        least, most = schema.get("minimum", value), schema.get("maximum", value)
        if value < least:
            wrong(
                f"Invalid value: {value}: {path} in body should be greater than or equal to {least}"
            )
        if value > most:
            wrong(f"Invalid value: {value}: {path} in body should be less than or equal to {most}")
    return found


def _validate_object(value: dict, schema: dict, path: str) -> list[tuple[str, str, str]]:
    found = []
    join = (lambda key: f"{path}.{key}") if path else str
    for key in schema.get("required", ()):
        if value.get(key) is None:
            found.append((join(key), "FieldValueRequired", "Required value"))
    least = schema.get("minProperties", 0)
    if len(value) < least:
        message = f"{path} in body should have at least {least} properties"
        found.append((path, "FieldValueInvalid", f"Invalid value: {len(value)}: {message}"))
    if len(value) > schema.get("maxProperties", len(value)):
        found.append((path, "FieldValueTooMany", f"Too many: {len(value)}"))
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    for key, item in value.items():
        below = properties.get(key) or (others if isinstance(others, dict) else None)
        if below and not (item is None and key not in schema.get("required", ())):
            found += validate(item, below, join(key))
    return found


def _validate_list(value: list, schema: dict, path: str) -> list[tuple[str, str, str]]:
    found = []
    least, most = schema.get("minItems", 0), schema.get("maxItems", len(value))
    if len(value) > most:
        found.append(
            (path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {most} items")
        )
    if len(value) < least:
        message = f"{path} in body should have at least {least} items"
        found.append((path, "FieldValueInvalid", f"Invalid value: {len(value)}: {message}"))
    keys = schema.get("x-kubernetes-list-map-keys")
    if schema.get("x-kubernetes-list-type") == "map" and keys:
        seen = set()
        for index, item in enumerate(value):
            key = tuple(item.get(key) for key in keys) if isinstance(item, dict) else item
            if key in seen:
                found.append((f"{path}[{index}]", "FieldValueDuplicate", f"Duplicate value: {key}"))
            seen.add(key)
    for index, item in enumerate(value):
        found += validate(item, schema.get("items", {}), f"{path}[{index}]")
    return found


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return False
    return "T" in text
