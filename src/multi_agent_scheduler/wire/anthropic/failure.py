"""Failures: answers that are no 200, and error events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ...errors import ErrorInfo
from ..failure import classify, retry_after

__all__ = ["decode_error", "error_info"]


def error_info(payload: Mapping[str, Any]) -> ErrorInfo:
    """An error event, or the like of it: ``{"type": "error", "error": {"type", "message"}, "request_id"}``."""
    return _info(payload, status=None, request_id=None, after=None)


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
    """What an answer other than 200 means. ``headers`` has lower-case names; the body may be anything at all.

    ``x-should-retry``, by which the API overrules what a client would guess, decides over ``retryable``.
    """
    try:
        payload = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        payload = None
    info = _info(
        payload if isinstance(payload, dict) else {},
        status=status,
        request_id=headers.get("request-id") or headers.get("x-request-id"),
        after=retry_after(headers),
    )
    told = headers.get("x-should-retry")
    if told in ("true", "false"):
        info = msgspec.structs.replace(info, retryable=told == "true")
    return info


def _info(payload: Mapping[str, Any], *, status: int | None, request_id: str | None, after: float | None) -> ErrorInfo:
    error = payload.get("error")
    inner = error if isinstance(error, dict) else {}
    message = inner.get("message") or payload.get("message") or payload.get("detail")
    if message is None and isinstance(error, str):
        message = error
    own_id = payload.get("request_id")
    return classify(
        status=status,
        names=tuple(word for word in (inner.get("type"), inner.get("code")) if isinstance(word, str | int)),
        message=message,
        request_id=request_id or (own_id if isinstance(own_id, str) else None),
        after=after,
    )
