"""Why a Gemini answer stopped: the words of ``finishReason`` and ``promptFeedback.blockReason``, both ways."""

from __future__ import annotations

import re
from typing import Final

from ...records import Completed, StopReason

__all__ = ["PROTOCOL", "UNSPECIFIED", "block_word", "blocked", "completed", "finish_word"]

PROTOCOL: Final = "gemini"

UNSPECIFIED: Final = frozenset({"FINISH_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED"})
"""The zero values of the enums; "this value is unused", says the reference: neither finishes an answer."""

# The words that mean a block; those of a broken answer (MALFORMED_FUNCTION_CALL, MALFORMED_RESPONSE,
# UNEXPECTED_TOOL_CALL, TOO_MANY_TOOL_CALLS, MISSING_THOUGHT_SIGNATURE, NO_IMAGE, IMAGE_OTHER, OTHER) and those
# unknown here are "other": the answer did finish by its protocol, so it is completed, but not a success; what Google
# says of it (finishMessage) is kept.
_REASONS: Final[dict[str, StopReason]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "pause",
    "FUNCTION_CALL": "tool_calls",  # not Google's own word (that is STOP), but a stand-in's for it
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "ESCALATION": "content_filter",
    "PUP_LIMITED_DISABLED": "content_filter",
    "MODEL_ARMOR": "content_filter",
}
_BLOCKS: Final = frozenset(
    {"SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "MODEL_ARMOR", "JAILBREAK"}
)
_WORDS: Final[dict[StopReason, str]] = {
    "stop": "STOP",
    "stop_sequence": "STOP",
    "tool_calls": "STOP",
    "length": "MAX_TOKENS",
    "pause": "CONTINUATION",
    "content_filter": "SAFETY",
    "other": "OTHER",
}
_WORD: Final = re.compile(r"[A-Z][A-Z0-9_]*")


def completed(reason: str, *, called: bool) -> Completed:
    """The outcome for a finishReason. Gemini says STOP for function calls too: ``called`` tells them apart."""
    unified = _REASONS.get(reason, "other")
    return Completed("tool_calls" if called and unified == "stop" else unified, raw_stop_reason=reason)


def blocked(reason: str) -> Completed:
    """The outcome for a prompt that was blocked."""
    return Completed("content_filter", raw_stop_reason=reason)


def finish_word(outcome: Completed) -> str:
    """The finishReason to send: the provider's own word if it is one of Gemini's and means the same."""
    raw = outcome.raw_stop_reason or ""
    usual = _WORDS[outcome.stop_reason]
    if raw in UNSPECIFIED or not _WORD.fullmatch(raw):
        return usual
    unified = _REASONS.get(raw, "other")
    return raw if unified == outcome.stop_reason or raw == usual else usual


def block_word(outcome: Completed) -> str | None:
    """The blockReason to send for a prompt that was blocked; None if the word is not one of the known reasons."""
    raw = outcome.raw_stop_reason
    return raw if outcome.stop_reason == "content_filter" and raw in _BLOCKS else None
