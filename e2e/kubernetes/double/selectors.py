"""Label and field selectors."""

from __future__ import annotations

import re

from .errors import ApiError

SET = re.compile(r"^(\S+)\s+(in|notin)\s+\(([^)]*)\)$")


class Selector:
    """Both selectors of a list or watch."""

    def __init__(self, labels: str = "", fields: str = ""):
        self.labels = [_label_requirement(part) for part in _split(labels)]
        self.fields = [_field_requirement(part) for part in _split(fields)]

    def matches(self, item: dict) -> bool:
        labels = item["metadata"].get("labels") or {}
        return all(holds(labels) for holds in self.labels) and all(
            holds(item) for holds in self.fields
        )


def _split(text: str) -> list[str]:
    """At commas outside of parentheses."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def _label_requirement(text: str):
    found = SET.match(text)
    if found:
        key, operator, values = found.groups()
        wanted = {value.strip() for value in values.split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in wanted
        return lambda labels: labels.get(key) not in wanted
    if "!=" in text:
        key, value = (part.strip() for part in text.split("!=", 1))
        return lambda labels: labels.get(key) != value
    if "=" in text:
        key, value = (part.strip() for part in text.replace("==", "=").split("=", 1))
        return lambda labels: labels.get(key) == value
    if text.startswith("!"):
        return lambda labels: text[1:].strip() not in labels
    return lambda labels: text in labels


def _field_requirement(text: str):
    found = re.match(r"^([\w.]+)(==|!=|=)(.*)$", text)
    if not found:
        raise ApiError(400, f'unable to parse requirement: invalid field selector: "{text}"')
    path, operator, value = found.groups()

    def holds(item: dict) -> bool:
        found = item
        for key in path.split("."):
            found = (found or {}).get(key)
        return (str(found or "") == value) == (operator != "!=")

    return holds
