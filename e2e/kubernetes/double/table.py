"""Objects as clients ask for them: whole, their metadata alone, or a table of printer columns."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from .kinds import Kind

META = "meta.k8s.io/v1"
NAME_AND_AGE = ({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},)


def asked(accept: str) -> str:
    """`Table`, `PartialObjectMetadata` (or its list) or nothing: the first form we have."""
    for form in accept.split(","):
        parameters = dict(part.strip().split("=", 1) for part in form.split(";")[1:] if "=" in part)
        if not parameters.get("as"):
            return ""
        if parameters["as"] in ("Table", "PartialObjectMetadata", "PartialObjectMetadataList"):
            return parameters["as"]
    return ""


def one(item: dict, kind: Kind, form: str) -> dict:
    """One object, also that of an event."""
    if form.startswith("PartialObjectMetadata"):
        return {"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": item["metadata"]}
    if form == "Table":
        return _table([item], kind, item["metadata"].get("resourceVersion", ""))
    return item


def many(items: list[dict], kind: Kind, metadata: dict, form: str) -> dict:
    if form == "Table":
        return _table(items, kind, metadata["resourceVersion"])
    if form.startswith("PartialObjectMetadata"):
        items = [one(item, kind, form) for item in items]
        answer = {"kind": "PartialObjectMetadataList", "apiVersion": META}
    else:
        answer = {"kind": f"{kind.name}List", "apiVersion": kind.api_version}
        if kind.schema is None:
            # As recorded: items of built-in kinds do not repeat what the list says.
            plain = ("apiVersion", "kind")
            items = [{k: v for k, v in item.items() if k not in plain} for item in items]
    return answer | {"metadata": metadata, "items": items}


def _table(items: list[dict], kind: Kind, revision: str) -> dict:
    columns = kind.columns or NAME_AND_AGE
    definitions = [
        {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}
    ]
    for column in columns:
        description = column.get("description", "")
        plain = {"name": column["name"], "type": column["type"], "format": column.get("format", "")}
        definitions.append(
            plain | {"description": description, "priority": column.get("priority", 0)}
        )
    rows = []
    for item in items:
        cells = [item["metadata"]["name"]]
        cells += [_cell(item, column) for column in columns]
        rows.append({"cells": cells, "object": one(item, kind, "PartialObjectMetadata")})
    answer = {"kind": "Table", "apiVersion": META, "metadata": {"resourceVersion": revision}}
    return answer | {"columnDefinitions": definitions, "rows": rows}


def _cell(item: dict, column: dict):
    found = json_path(item, column["jsonPath"])
    if not found:
        return None
    value = found[0]
    if column["type"] == "date":
        age = datetime.now(UTC) - datetime.fromisoformat(str(value).replace("Z", "+00:00"))
        return f"{int(age.total_seconds())}s"
    return value


STEP = re.compile(
    r"""\.(?P<key>\w+)|\['(?P<quoted>[^']+)'\]|\[(?P<index>\d+|\*)\]"""
    r"""|\[\?\(@\.(?P<by>\w+)\s*==\s*["'](?P<value>[^"']*)["']\)\]"""
)


def json_path(item, path: str) -> list:
    """Fields, indexes, `[*]` and `[?(@.key=="value")]`."""
    found, at = [item], 0
    while at < len(path):
        step = STEP.match(path, at)
        if not step:
            raise ValueError(f"JSONPath {path!r} is not understood from {path[at:]!r} on")
        at = step.end()
        key = step["key"] or step["quoted"]
        if key:
            found = [value[key] for value in found if isinstance(value, dict) and key in value]
            continue
        lists = [value for value in found if isinstance(value, list)]
        if step["by"]:
            wanted = (step["by"], step["value"])
            found = [v for values in lists for v in values if v.get(wanted[0]) == wanted[1]]
        elif step["index"] == "*":
            found = [v for values in lists for v in values]
        else:
            index = int(step["index"])
            found = [values[index] for values in lists if index < len(values)]
    return found
