"""What the loopback provider says: event streams of OpenAI chat, OpenAI responses and Anthropic messages, pre-rendered.

Shapes and sizes are those of the real services: an OpenAI chat chunk with its id, model, fingerprint and obfuscation is
250-300 bytes for a token of four characters or so. A rendered stream is shared by all the requests that ask for it, so
that serving costs one ``write`` per chunk and nothing else.
"""

from __future__ import annotations

import json
import time
from functools import lru_cache
from itertools import cycle, islice
from typing import Any

__all__ = ["PROTOCOLS", "STAMP_EVERY", "render", "stamped", "text_of"]

STAMP_EVERY = 25
"""Of the streams that ask for stamps: every so many chunks one says when it was sent."""

_STAMP = b" @0000000000000000"

# Tokens as a model gives them: a space and a short word, now and then a comma or a line end. 4 characters on average.
_TOKENS = (
    " the", " sky", " is", " blue", ",", " and", " light", " from", " sun", " goes", " far", ".", "\n", "So", " we",
    " see", " that", " colour", " when", " it", " bends", " in", " air", ".", " Why", "?", " Small", " parts", " turn",
    " blue", " more",
)  # fmt: skip

_MODEL = "gpt-4o-mini-2024-07-18"
_CREATED = 1_760_000_000


def tokens(count: int) -> list[str]:
    """The answer of ``count`` chunks: the same words over and over."""
    return list(islice(cycle(_TOKENS), count))


def stamped(write: bytes) -> bytes:
    """The write with the time at which it is sent, in microseconds of the monotonic clock, if it has a place for it."""
    return write.replace(_STAMP, b" @%016d" % (time.monotonic_ns() // 1000))


def text_of(count: int) -> str:
    """The whole text of a stream of ``count`` chunks, for clients to be checked against."""
    return "".join(tokens(count))


def _json(payload: dict[str, Any]) -> str:
    return json.dumps(payload, separators=(",", ":"))


def _obfuscation(index: int) -> str:
    """Padding as OpenAI adds it to hide the length of tokens: up to 15 letters, here a fixed pattern."""
    return "Zk3xWq9bTn5vJr"[: 2 + index * 5 % 13]


def _chat(count: int) -> tuple[list[str], list[str], list[str]]:
    base = {
        "id": "chatcmpl-Bq8T1kq0QmVnS7yPq2XrJ4f9LhGcd",
        "object": "chat.completion.chunk",
        "created": _CREATED,
        "model": _MODEL,
        "system_fingerprint": "fp_34a54ae93c",
    }

    def chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        payload = {**base, "choices": [choice], "obfuscation": _obfuscation(index)}
        return f"data: {_json(payload)}\n\n"

    usage = {"prompt_tokens": 12, "completion_tokens": count, "total_tokens": 12 + count}
    before = [chunk(0, {"role": "assistant", "content": "", "refusal": None})]
    middle = [chunk(index, {"content": token}) for index, token in enumerate(tokens(count))]
    after = [
        chunk(count, {}, "stop"),
        f"data: {_json({**base, 'choices': [], 'usage': usage})}\n\n",
        "data: [DONE]\n\n",
    ]
    return before, middle, after


def _responses(count: int) -> tuple[list[str], list[str], list[str]]:
    item_id = "msg_68af4030baa48193b0b43b4c2a176a1a0e6967589f080e78"
    response: dict[str, Any] = {
        "id": "resp_68af4030592c81938ec0a5fbab4a3e9f05438e46b5f69a3b",
        "object": "response",
        "created_at": _CREATED,
        "status": "in_progress",
        "model": _MODEL,
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
    }
    text = text_of(count)
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    item = {"id": item_id, "type": "message", "status": "in_progress", "content": [], "role": "assistant"}
    place = {"item_id": item_id, "output_index": 0, "content_index": 0}
    number = 0

    def event(kind: str, **fields: Any) -> str:
        nonlocal number
        payload = {"type": kind, "sequence_number": number, **fields}
        number += 1
        return f"event: {kind}\ndata: {_json(payload)}\n\n"

    before = [
        event("response.created", response=response),
        event("response.in_progress", response=response),
        event("response.output_item.added", output_index=0, item=item),
        event("response.content_part.added", **place, part=part),
    ]
    middle = [
        event("response.output_text.delta", **place, delta=token, logprobs=[], obfuscation=_obfuscation(index))
        for index, token in enumerate(tokens(count))
    ]
    done = {**item, "status": "completed", "content": [{**part, "text": text}]}
    usage = {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": count,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 12 + count,
    }
    after = [
        event("response.output_text.done", **place, text=text, logprobs=[]),
        event("response.content_part.done", **place, part={**part, "text": text}),
        event("response.output_item.done", output_index=0, item=done),
        event("response.completed", response={**response, "status": "completed", "output": [done], "usage": usage}),
    ]
    return before, middle, after


def _messages(count: int) -> tuple[list[str], list[str], list[str]]:
    def event(kind: str, **fields: Any) -> str:
        return f"event: {kind}\ndata: {_json({'type': kind, **fields})}\n\n"

    message = {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "claude-sonnet-4-5-20250929",
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "output_tokens": 1},
    }
    before = [
        event("message_start", message=message),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("ping"),
    ]
    middle = [
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": token}) for token in tokens(count)
    ]
    after = [
        event("content_block_stop", index=0),
        event(
            "message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": count}
        ),
        event("message_stop"),
    ]
    return before, middle, after


PROTOCOLS = {"/chat/completions": _chat, "/responses": _responses, "/messages": _messages}
"""The end of a request's path, and what is said there."""


def _framed(events: list[str]) -> bytes:
    """One HTTP/1.1 chunk (RFC 9112, 7.1) of these events, as servers send what one flush brings."""
    data = "".join(events).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


@lru_cache(maxsize=64)
def render(ending: str, count: int, *, stamps: bool = False) -> tuple[bytes, ...]:
    """The writes of a stream's body: ``count``, each with one token; the first also opens it, the last closes it.

    With ``stamps`` every 25th token is a place for :func:`stamped`.
    """
    before, middle, after = PROTOCOLS[ending](count)
    if stamps:
        token = json.dumps(tokens(1)[0])
        for index in range(STAMP_EVERY - 1, count, STAMP_EVERY):
            middle[index] = middle[0].replace(token, json.dumps(_STAMP.decode()), 1)
    writes = [_framed([event]) for event in middle]
    writes[0] = _framed(before) + writes[0]
    writes[-1] += _framed(after) + b"0\r\n\r\n"
    return tuple(writes)
