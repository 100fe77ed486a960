"""The words of the protocol and what they mean here."""

from __future__ import annotations

from typing import Any, Final

from ...records import Completed, StopReason

__all__ = [
    "ERROR_TYPES",
    "PROTOCOL",
    "TOOL_USES",
    "input_object",
    "is_tool_result",
    "leftover",
    "raw_stop_reason",
    "stop_reason",
]

PROTOCOL: Final = "anthropic"

# https://docs.anthropic.com/en/api/handling-stop-reasons
_STOP_REASONS: Final[dict[str, StopReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop_sequence",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "pause",
}
_OTHERS: Final[dict[str, StopReason]] = {"content_filter": "content_filter"}
"""What endpoints that are compatible say, though the protocol has no such word."""

_RAW: Final[dict[str, str]] = {
    "stop": "end_turn",
    "stop_sequence": "stop_sequence",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "pause": "pause_turn",
}

# https://docs.anthropic.com/en/api/errors; what is not here is an api_error, their word for "we failed".
ERROR_TYPES: Final[dict[str, str]] = {
    "invalid_request_error": "invalid_request_error",
    "not_found_error": "not_found_error",
    "request_too_large": "request_too_large",
    "authentication_error": "authentication_error",
    "permission_error": "permission_error",
    "rate_limit_error": "rate_limit_error",
    "insufficient_quota": "billing_error",
    "overloaded_error": "overloaded_error",
    "timeout_error": "timeout_error",
}

TOOL_USES: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
"""The blocks that are tool calls; the client runs only the first kind."""


def is_tool_result(kind: Any) -> bool:
    """Whether a block type is the result of a tool that the provider ran (``web_search_tool_result`` and its kin)."""
    return isinstance(kind, str) and kind.endswith("_tool_result")


def stop_reason(raw: str | None) -> StopReason:
    """What a word for an ending means."""
    if raw is None:
        return "other"
    return _STOP_REASONS.get(raw) or _OTHERS.get(raw, "other")


def raw_stop_reason(end: Completed) -> str | None:
    """The protocol's word for an ending: its own if it came from here, else the one that means the same."""
    raw = end.raw_stop_reason
    if raw is not None and _STOP_REASONS.get(raw, "other") == end.stop_reason:
        return raw
    return _RAW.get(end.stop_reason)


def leftover(fields: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The fields that are not known and say something: neither null nor an empty list."""
    return {key: value for key, value in fields.items() if key not in known and value is not None and value != []}


def input_object(arguments: str, decode: Any) -> dict[str, Any]:
    """A tool call's arguments as the object that the protocol wants.

    Text that is no JSON object is wrapped as ``{"INVALID_JSON": text}``, the form that Anthropic's page on fine-grained
    tool streaming recommends for arguments that broke off.
    """
    if not arguments:
        return {}
    try:
        value = decode(arguments)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": arguments}
