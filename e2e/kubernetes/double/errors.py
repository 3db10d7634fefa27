"""Failures as Kubernetes tells them: a Status object with a reason and a code."""

from __future__ import annotations

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    504: "Timeout",
}


class ApiError(Exception):
    """Ends a request with this Status."""

    def __init__(self, code: int, message: str, reason: str = "", details: dict | None = None):
        super().__init__(message)
        self.code, self.message, self.details = code, message, details
        self.reason = reason or REASONS[code]
        self.retry_after_seconds = (details or {}).get("retryAfterSeconds")

    def status(self) -> dict:
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        status |= {"message": self.message, "reason": self.reason}
        if self.details:
            status["details"] = self.details
        return status | {"code": self.code}


class NoSuchPath(Exception):
    """Nothing is served there: plain text, not a Status."""


def named(group: str, plural: str, name: str) -> dict:
    details = {"name": name}
    if group:
        details["group"] = group
    return details | {"kind": plural}


def qualified(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> ApiError:
    message = f'{qualified(group, plural)} "{name}" not found'
    return ApiError(404, message, details=named(group, plural, name))


def already_exists(group: str, plural: str, name: str) -> ApiError:
    message = f'{qualified(group, plural)} "{name}" already exists'
    return ApiError(409, message, "AlreadyExists", named(group, plural, name))


def modified(group: str, plural: str, name: str) -> ApiError:
    message = (
        f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": the object has been'
        " modified; please apply your changes to the latest version and try again"
    )
    return ApiError(409, message, details=named(group, plural, name))


def invalid(group: str, kind: str, name: str, causes: list[tuple[str, str, str]]) -> ApiError:
    """`causes`: field, reason and message of each."""
    told = [f"{field}: {message}" for field, _, message in causes]
    told = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    message = f'{qualified(group, kind)} "{name}" is invalid: {told}'
    message = message.replace(qualified(group, kind), f"{kind}.{group}" if group else kind, 1)
    entries = [{"reason": r, "message": m, "field": f} for f, r, m in causes]
    return ApiError(422, message, details=named(group, kind, name) | {"causes": entries})


def expired(asked: int, current: int) -> ApiError:
    return ApiError(410, f"too old resource version: {asked} ({current})")


def too_large(asked: int, current: int) -> ApiError:
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return ApiError(
        504,
        f"Timeout: Too large resource version: {asked}, current: {current}",
        details={"causes": [cause], "retryAfterSeconds": 1},
    )
