"""How an answer ended and what it cost: statuses, reasons, usage and error objects, both ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from ...errors import ErrorInfo
from ...records import Cancelled, Completed, Failed, Interrupted, Skipped, StopReason, Terminal, Usage
from ..failure import classify, from_status, retry_after

__all__ = ["PROTOCOL", "decode_error", "read_error", "read_incomplete", "read_usage", "write_outcome", "write_usage"]

PROTOCOL: Final = "openai_responses"

# --- reasons ----------------------------------------------------------------------------------------------------

_INCOMPLETE: Final[dict[str, StopReason]] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "length": "length",
    "content_filter": "content_filter",
}


def read_incomplete(response: Mapping[str, Any]) -> Completed:
    """The outcome of a response whose status is ``incomplete``; a reason that is unknown here is ``other``.

    Servers that give none (llama.cpp's, vLLM's) know no other reason than the limit on tokens.
    """
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    if not isinstance(reason, str) or not reason:
        return Completed(stop_reason="length", raw_stop_reason="incomplete")
    return Completed(stop_reason=_INCOMPLETE.get(reason, "other"), raw_stop_reason=reason)


def write_outcome(terminal: Terminal, *, refused: bool) -> tuple[str, dict[str, Any]]:
    """A terminal's name in this protocol (the status, which is also the event's) and the fields that say why.

    ``refused`` says that the answer was nothing but a refusal: that is a completed response here. ``cancelled`` is a
    status of the protocol; an answer that broke off (interrupted, skipped) is a failed one, for want of a better
    word.
    """
    match terminal:
        case Completed(stop_reason=reason, raw_stop_reason=raw):
            if reason in ("stop", "stop_sequence", "tool_calls") or (reason == "content_filter" and refused):
                return "completed", {}
            if raw is None or _INCOMPLETE.get(raw, "other") != reason:
                raw = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(reason, raw or reason)
            return "incomplete", {"incomplete_details": {"reason": raw}}
        case Cancelled():
            return "cancelled", {}
        case Skipped(reason=why):
            return "failed", {"error": {"code": "server_error", "message": why or "the task was skipped"}}
        case Failed(error=error) | Interrupted(error=error):
            return "failed", {"error": _write_error(error)}


# --- errors -----------------------------------------------------------------------------------------------------

# Our codes that the protocol has a word of its own for, or none at all; every other is a word that it knows.
_WRITE_CODE: Final = {
    "agent_error": "server_error",
    "connection_error": "server_error",
    "interrupted": "server_error",
    "invalid_request_error": "invalid_prompt",
    "protocol_error": "server_error",
    "rate_limit_error": "rate_limit_exceeded",
    "response_too_large": "server_error",
}
_REQUEST_IDS: Final = ("x-request-id", "apim-request-id", "x-ms-request-id", "request-id")


def _write_error(error: ErrorInfo) -> dict[str, Any]:
    return {"code": _WRITE_CODE.get(error.code, error.code), "message": error.message}


def read_error(error: Any) -> ErrorInfo:
    """A response's ``error`` object, or an ``error`` event; the code says more than the type, so it is asked first."""
    if not isinstance(error, dict):
        return classify(message=error if isinstance(error, str) else None)
    kind = error.get("type")
    names = (*_names(error.get("code")), None if kind in ("error", "response.error") else kind, error.get("status"))
    return classify(names=names, message=error.get("message"))


def _names(code: Any) -> Iterable[Any]:
    """The code as it came, and what its wording says where it is not one of the well-known ones."""
    yield _plain(code)
    if not isinstance(code, str):
        return
    if "policy" in code or "content_filter" in code:
        yield "content_filter"
    elif code.endswith("timeout"):
        yield "timeout_error"
    elif "rate_limit" in code:
        yield "rate_limit_error"
    elif code.startswith(("invalid_", "unsupported_")) or "image" in code or code.endswith("mismatch"):
        yield "invalid_request_error"


def _plain(value: Any) -> str | int | None:
    """A word, or a number that is an HTTP status of an error."""
    if isinstance(value, str) and not value.isdigit():
        return value
    status = _count(value)
    return status if status is not None and 400 <= status <= 599 else None


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
    """What an answer other than 200 means. ``headers`` has lower-case names; ``body`` may be anything, or nothing."""
    try:
        payload: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        payload = None
    error = payload
    if isinstance(payload, dict):
        error = payload.get("error") or payload.get("detail") or payload
    request_id = next((headers[name] for name in _REQUEST_IDS if headers.get(name)), None)
    after = retry_after(headers)
    if not isinstance(error, dict):
        message = error if isinstance(error, str) else None
        return classify(status=status, message=message, request_id=request_id, after=after)
    kind = _plain(error.get("type"))
    # Every refusal is an "invalid_request_error" by type, a bad key too; the status then says more than the type.
    vague = kind == "invalid_request_error" and from_status(status) != kind
    names = (*_names(error.get("code")), None if vague else kind)
    info = classify(status=status, names=names, message=error.get("message"), request_id=request_id, after=after)
    if vague and info.provider_code is None:
        return msgspec.structs.replace(info, provider_code=str(kind))
    return info


# --- usage ------------------------------------------------------------------------------------------------------


def read_usage(raw: Any) -> Usage | None:
    """The record for a response's ``usage`` object; None where there is none."""
    if not isinstance(raw, dict) or not raw:
        return None
    into, out = raw.get("input_tokens_details"), raw.get("output_tokens_details")
    into, out = into if isinstance(into, dict) else {}, out if isinstance(out, dict) else {}
    return Usage(
        input_tokens=_count(raw.get("input_tokens")),
        output_tokens=_count(raw.get("output_tokens")),
        reasoning_tokens=_count(out.get("reasoning_tokens")),
        cache_read_tokens=_count(into.get("cached_tokens")),
        cache_write_tokens=_count(into.get("cache_write_tokens")),
        raw=raw,
    )


def _count(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 18:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def write_usage(usages: Iterable[Usage]) -> dict[str, Any] | None:
    """The usage object of a response that took these Calls; None while nothing is known.

    One Call's own object is passed on as it came where it is of this protocol's shape (only this one has both
    ``input_tokens`` and ``total_tokens``); otherwise the object is made anew, and what is unknown counts as 0.
    """
    calls = [usage for usage in usages if usage.input_tokens is not None or usage.output_tokens is not None]
    if not calls:
        return None
    if len(calls) == 1 and isinstance(calls[0].raw, dict):
        raw: dict[str, Any] = calls[0].raw
        if "total_tokens" in raw and raw.get("input_tokens") == calls[0].input_tokens:
            return raw
    into = {"cached_tokens": sum(usage.cache_read_tokens or 0 for usage in calls)}
    written = sum(usage.cache_write_tokens or 0 for usage in calls)
    if written:
        into["cache_write_tokens"] = written
    given = sum(usage.input_tokens or 0 for usage in calls)
    made = sum(usage.output_tokens or 0 for usage in calls)
    return {
        "input_tokens": given,
        "input_tokens_details": into,
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": sum(usage.reasoning_tokens or 0 for usage in calls)},
        "total_tokens": given + made,
    }
