"""What may be shown on a terminal, and how a result is summed up."""

from __future__ import annotations

import re
from typing import Final

from ..task import Result

__all__ = ["printable", "status"]

# Everything that could move the cursor, change colours or talk to the terminal: C0 and C1 but for tab and line feed.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """The text with its control characters made visible: a model must not drive the terminal."""
    return _CONTROL.sub(lambda match: "\ufffd" if match[0] != "\r" else "", text)


def status(name: str, result: Result) -> str:
    """One line about a result."""
    parts = [name]
    if result.model:
        parts.append(printable(result.model))
    parts.append(f"{result.state} ({result.stop_reason})" if result.stop_reason else result.state)
    if result.usage is not None and result.usage.output_tokens is not None:
        parts.append(f"{result.usage.output_tokens} tokens")
    if result.ttft is not None:
        parts.append(f"first chunk {result.ttft:.2f} s")
    parts.append(f"{result.latency:.2f} s")
    return " · ".join(parts)
