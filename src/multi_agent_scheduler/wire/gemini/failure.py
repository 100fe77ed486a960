"""Google's error objects (google.rpc.Status as JSON), both ways."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ...errors import ErrorInfo
from ..failure import classify, retry_after

__all__ = ["decode_error", "error_info", "error_object"]

_json: Final = msgspec.json.Decoder()
_SECONDS: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")
_RETRY_INFO: Final = "type.googleapis.com/google.rpc.RetryInfo"
_BAD_KEY: Final = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED"})  # they come with 400 INVALID_ARGUMENT
_REQUEST_IDS: Final = ("x-request-id", "x-goog-request-id", "x-guploader-uploadid")

# (HTTP status, google.rpc.Code) for the codes of this project
_STATUSES: Final[dict[str, tuple[int, str]]] = {
    "invalid_request_error": (400, "INVALID_ARGUMENT"),
    "request_too_large": (413, "INVALID_ARGUMENT"),
    "content_filter": (400, "FAILED_PRECONDITION"),
    "authentication_error": (401, "UNAUTHENTICATED"),
    "permission_error": (403, "PERMISSION_DENIED"),
    "not_found_error": (404, "NOT_FOUND"),
    "rate_limit_error": (429, "RESOURCE_EXHAUSTED"),
    "insufficient_quota": (429, "RESOURCE_EXHAUSTED"),
    "cancelled": (499, "CANCELLED"),
    "overloaded_error": (503, "UNAVAILABLE"),
    "connection_error": (503, "UNAVAILABLE"),
    "interrupted": (503, "UNAVAILABLE"),
    "timeout_error": (504, "DEADLINE_EXCEEDED"),
}
_OTHER: Final = (500, "INTERNAL")


def error_info(
    error: Any, *, status: int | None = None, request_id: str | None = None, after: float | None = None
) -> ErrorInfo:
    """An error object: ``code``, ``message``, ``status``, ``details`` (RetryInfo says when, ErrorInfo says why)."""
    if not isinstance(error, dict):
        return classify(
            status=status, message=error if isinstance(error, str) else None, request_id=request_id, after=after
        )
    details = error.get("details")
    delay = reason = None
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, dict):
            delay = delay if delay is not None else _seconds(detail.get("retryDelay"))
            reason = reason or detail.get("reason")
    words = error.get("status"), error.get("type"), error.get("code")
    names: tuple[Any, ...] = tuple(word for word in words if isinstance(word, str | int))
    info = classify(
        status=status,
        names=names,
        message=error.get("message"),
        request_id=request_id,
        after=delay if delay is not None else after,
    )
    if isinstance(reason, str) and reason in _BAD_KEY:
        known = classify(names=("authentication_error",))
        return msgspec.structs.replace(
            info, code=known.code, message=known.message, provider_code=reason, retryable=False
        )
    if info.provider_code == "CANCELLED":
        return msgspec.structs.replace(info, code="cancelled", message="the call was stopped", retryable=False)
    return info


def error_object(info: ErrorInfo) -> dict[str, Any]:
    """The error object to send for a failure; the provider's own words where they are Google's."""
    code, word = _STATUSES.get(info.code, _OTHER)
    own = info.provider_code or ""
    error: dict[str, Any] = {
        "code": info.status if info.status is not None and info.status >= 400 else code,
        "message": info.detail or info.message,
        "status": own if own.isupper() else word,
    }
    if info.retry_after is not None:
        delay = f"{info.retry_after:.9f}".rstrip("0").rstrip(".")
        error["details"] = [{"@type": _RETRY_INFO, "retryDelay": f"{delay}s"}]
    return error


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
    """An answer that is not 200, whatever its body is. ``headers`` has lower-case names.

    Without ``alt=sse`` Google wraps the error in a list. The delay in the body's details goes before the header's.
    """
    try:
        payload = _json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[:4000].decode("utf-8", "replace").strip()
        payload = text if text and not text.startswith("<") else None
    if isinstance(payload, list):
        payload = next((item for item in payload if isinstance(item, dict)), None)
    error = payload.get("error", payload) if isinstance(payload, dict) else payload
    request_id = next((headers[name] for name in _REQUEST_IDS if headers.get(name)), None)
    return error_info(error, status=status, request_id=request_id, after=retry_after(headers))


def _seconds(text: Any) -> float | None:
    match = _SECONDS.fullmatch(text) if isinstance(text, str) else None
    return float(match[1]) if match else None
