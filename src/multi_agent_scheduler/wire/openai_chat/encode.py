"""Records as a chat completion, streamed or whole.

- Each delta is a chunk of its own. Reasoning is ``reasoning_content``; where it has a seal, an id or a kind, it is told
  in OpenRouter's ``reasoning_details`` too, which can be sent back.
- Texts of several parts become one content, since this protocol has no blocks. Branches named 1 to 127 are choices;
  other branches are not shown, nor are tools that the provider itself ran.
- Usage comes once, after the finish reason; an answer whose input or output tokens are unknown has none.
- A failure is an error object in place of the finish reason; the provider's own text is not passed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ...records import Reasoning, Record, Text
from .chunks import Chunk, Chunks, is_sealed
from .message import fold, joined

__all__ = ["Encoder"]

_json: Final = msgspec.json.encode


class Encoder:
    """``encode`` batches of one stream's records, in order; or have the ``body`` of a finished one.

    ``created`` is in seconds since the epoch. ``include_usage`` is the client's ``stream_options.include_usage``.
    A ``Reset`` after something was shown raises :class:`~multi_agent_scheduler.errors.StreamReset`: a client cannot be
    told to forget. Records after the terminal are ignored.
    """

    def __init__(self, *, id: str, model: str, created: int, include_usage: bool = True) -> None:  # noqa: A002
        self._names = {"id": id, "created": created, "model": model}
        envelope = _json({"id": id, "object": "chat.completion.chunk", "created": created, "model": model})
        self._head = b"data: " + envelope[:-1] + b","
        self._text_head = self._head + b'"choices":[{"index":0,"delta":{"content":'
        self._reasoning_head = self._head + b'"choices":[{"index":0,"delta":{"reasoning_content":'
        self._chunks = Chunks(include_usage=include_usage)
        self._plain: tuple[bool, int | None] = (False, None)

    def encode(self, records: Sequence[Record]) -> bytes:
        """The bytes that show these records; b"" if there is nothing to show."""
        frames: list[bytes] = []
        chunks = self._chunks
        plain, thinking = self._plain
        for record in records:
            if plain and type(record) is Text and record.branch is None:
                if record.text:
                    frames.append(self._text_head + _json(record.text) + _TAIL)
                continue
            if type(record) is Reasoning and record.part == thinking and not (record.branch or is_sealed(record)):
                if record.text:
                    frames.append(self._reasoning_head + _json(record.text) + _TAIL)
                continue
            ended = chunks.ended
            frames += [self._frame(chunk) for chunk in chunks.of(record)]
            plain, thinking = chunks.plain()
            if chunks.ended and not ended and not chunks.failed:
                frames.append(b"data: [DONE]\n\n")
        self._plain = plain, thinking
        return b"".join(frames)

    def body(self, records: Sequence[Record]) -> dict[str, Any]:
        """The response object of a finished stream, of all its records; ``{"error": ...}`` for one that failed.

        Independent of what was given to ``encode``; raises as that does.
        """
        chunks = Chunks(include_usage=True)
        answer = fold(chunk for record in joined(records) for chunk in chunks.of(record))
        if "error" in answer:
            return {"error": answer["error"]}
        names = self._names
        envelope = {
            "id": names["id"],
            "object": "chat.completion",
            "created": names["created"],
            "model": names["model"],
        }
        return {**envelope, **answer}

    def _frame(self, chunk: Chunk) -> bytes:
        if "error" in chunk:
            return b"data: " + _json(chunk) + b"\n\n"
        return self._head + _json(chunk)[1:] + b"\n\n"


_TAIL: Final = b'},"logprobs":null,"finish_reason":null}]}\n\n'
