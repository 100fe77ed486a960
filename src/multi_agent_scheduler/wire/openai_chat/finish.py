"""Why a choice stopped: the protocol's finish reasons and the unified ones."""

from __future__ import annotations

from typing import Final

from ...records import Completed, StopReason

__all__ = ["FAILED", "PROTOCOL", "finish_reason", "stop_reason"]

PROTOCOL: Final = "openai_chat"

FAILED: Final = "error"
"""What OpenRouter puts into finish_reason when the provider behind it broke off."""

_REASONS: Final[dict[str, StopReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    # Words of single providers, each from its own reference.
    "eos": "stop",  # Together
    "eos_token": "stop",  # Hugging Face TGI
    "stop_sequence": "stop",  # Hugging Face TGI
    "model_length": "length",  # Mistral
}

_WORDS: Final[dict[StopReason, str]] = {
    "stop": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "pause": "stop",
    "other": "stop",
}


def stop_reason(word: str) -> StopReason:
    """The unified reason for a provider's word; "other" for one that is unknown here."""
    return _REASONS.get(word) or _REASONS.get(word.lower(), "other")


def finish_reason(completed: Completed, *, refused: bool = False) -> str:
    """The protocol's word for an outcome: one of the four that clients of the current API know.

    ``refused`` says that a refusal was shown; OpenAI's own word beside a refusal is then kept ("stop").
    """
    if refused and completed.raw_stop_reason == "stop":
        return "stop"
    return _WORDS[completed.stop_reason]
