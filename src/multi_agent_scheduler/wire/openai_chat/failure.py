"""Error objects, both ways: ``{"error": {"message", "type", "param", "code"}}`` and the shapes that others send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ...errors import ErrorInfo
from ..failure import classify, retry_after

__all__ = ["decode_error", "error_info", "error_object"]

_json: Final = msgspec.json.Decoder()
_REQUEST_IDS: Final = ("x-request-id", "request-id", "apim-request-id", "x-ms-request-id", "x-generation-id")

# Codes of this project that no provider uses: another server of this project sent them, as error_object wrote them.
_OURS: Final = {
    "agent_error": "the agent failed",
    "cancelled": "the call was stopped",
    "connection_error": "no connection to the provider could be made",
    "interrupted": "the answer ended before its finish marker",
    "protocol_error": "the provider sent something that its protocol does not allow",
    "response_too_large": "the answer is larger than is allowed",
}
_RETRYABLE: Final = frozenset({"connection_error", "interrupted"})


def error_info(
    error: Any, *, status: int | None = None, request_id: str | None = None, after: float | None = None
) -> ErrorInfo:
    """An error object. ``code`` is the exact word, ``type`` the family, so that the code is asked first."""
    names: tuple[Any, ...] = ()
    message: Any = error
    if isinstance(error, dict):
        words = (error.get(name) for name in ("code", "type", "error_type", "status", "status_code"))
        names = tuple(word for word in words if isinstance(word, str | int) and not isinstance(word, bool))
        message = error.get("message") or error.get("detail") or error.get("error")
        if isinstance(message, dict | list):  # FastAPI's validation errors, for one
            message = msgspec.json.encode(message).decode()
    info = classify(status=status, names=names, message=message, request_id=request_id, after=after)
    ours = error.get("type") if isinstance(error, dict) else None
    if isinstance(ours, str) and ours in _OURS:
        info = msgspec.structs.replace(info, code=ours, message=_OURS[ours], retryable=ours in _RETRYABLE)
    return info


def error_object(info: ErrorInfo) -> dict[str, Any]:
    """The error object to send for a failure: our sentence and code, and the provider's own code where it gave one."""
    return {"message": info.message, "type": info.code, "param": None, "code": info.provider_code or info.code}


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
    """A response that is no answer; ``headers`` has lower-case names, ``body`` may be anything.

    ``x-should-retry``, OpenAI's own word on whether to try again, decides where it is sent.
    """
    request_id = next((headers[name] for name in _REQUEST_IDS if headers.get(name)), None)
    try:
        payload = _json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[:4096].decode("utf-8", "replace").strip()
        payload = None if text.startswith("<") else text  # a page of HTML says nothing that a person wants to read
    if isinstance(payload, list) and payload:
        payload = payload[0]
    if isinstance(payload, dict) and payload.get("error"):
        inner = payload["error"]
        payload = inner if isinstance(inner, dict) else {**payload, "message": payload.get("message") or inner}
    info = error_info(payload, status=status, request_id=request_id, after=retry_after(headers))
    advice = headers.get("x-should-retry", "").lower()
    if advice in ("true", "false"):
        info = msgspec.structs.replace(info, retryable=advice == "true")
    return info
