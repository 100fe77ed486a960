"""One message of a request body as a canonical one."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

from ...errors import InvalidRequest
from ...request import (
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    UnknownPart,
)
from .fields import Fields
from .finish import PROTOCOL

__all__ = ["parse_message"]

_ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_FIELDS: Final = frozenset({"role", "content", "name", "type"})
_RESULT: Final = _FIELDS | {"tool_call_id"}
_ASSISTANT: Final = _FIELDS | {
    "refusal",
    "tool_calls",
    "function_call",
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "annotations",
}
_CALL: Final = frozenset({"index", "id", "type", "function", "custom"})
_DETAIL: Final = frozenset({"type", "text", "summary", "data", "signature", "id", "index"})


def parse_message(message: Fields) -> Message:
    """Raises :class:`~multi_agent_scheduler.errors.InvalidRequest` naming the place."""
    word = message.text("role", required=True)
    role = _ROLES.get(word)
    if role is None:
        raise InvalidRequest(f"{message.place('role')} must be one of {', '.join(_ROLES)}, not {word!r}")
    if role == "tool":
        return Message("tool", (_result(message, word),))
    parts: list[Part] = []
    known = _FIELDS
    if role == "assistant":
        known = _ASSISTANT
        parts += _reasoning(message)
    parts += _content(message, required=role != "assistant")
    if role == "assistant":
        refusal = message.text("refusal")
        if refusal is not None:
            parts.append(RefusalPart(text=refusal))
        parts += _calls(message)
    rest = {key: value for key, value in message.raw.items() if key not in known and value is not None}
    if rest:
        parts.append(UnknownPart(raw=rest, protocol=PROTOCOL))
    return Message(role, tuple(parts), message.text("name"))


def _result(message: Fields, word: str) -> ToolResultPart:
    legacy = word == "function"
    content: list[TextPart | ImagePart | UnknownPart] = []
    for part in _content(message, required=False):
        if not isinstance(part, TextPart | ImagePart | UnknownPart):
            raise InvalidRequest(f"{message.place('content')}: a tool's result has texts")
        content.append(part)
    rest = {key: value for key, value in message.raw.items() if key not in _RESULT and value is not None}
    return ToolResultPart(
        id="" if legacy else message.text("tool_call_id", required=True),
        name=message.text("name", required=legacy) or "",
        content=tuple(content),
        extra=rest or None,
    )


def _content(message: Fields, *, required: bool) -> list[Part]:
    content = message.get("content")
    if content is None:
        if required:
            raise InvalidRequest(f"{message.place('content')} is missing")
        return []
    if isinstance(content, str):
        return [TextPart(text=content)]
    if not isinstance(content, list):
        raise InvalidRequest(f"{message.place('content')} must be a string or a list of parts")
    return [_part(Fields.of(item, message.place(f"content[{i}]"))) for i, item in enumerate(content)]


def _part(item: Fields) -> Part:
    kind = item.text("type", required=True)
    extra = {key: value for key, value in item.raw.items() if key not in ("type", kind) and value is not None} or None
    if kind == "text":
        return TextPart(text=item.text("text", required=True), extra=extra)
    if kind == "refusal":
        return RefusalPart(text=item.text("refusal", required=True), extra=extra)
    if kind == "image_url":
        return _image(item, extra)
    return UnknownPart(raw=dict(item.raw), protocol=PROTOCOL)


def _image(item: Fields, extra: dict[str, Any] | None) -> Part:
    if isinstance(item.get("image_url"), str):  # as Mistral takes it
        url, where, detail = item.get("image_url"), item.place("image_url"), None
    else:
        link = item.inner("image_url")
        url, where, detail = link.text("url", required=True), link.place("url"), link.text("detail")
        if link.raw.keys() - {"url", "detail"}:
            return UnknownPart(raw=dict(item.raw), protocol=PROTOCOL)
    if detail is not None:
        extra = {**(extra or {}), "detail": detail}
    if not url.startswith("data:"):
        return ImagePart(url=url, extra=extra)
    head, comma, data = url[5:].partition(",")
    if not comma or not head.endswith(";base64"):
        raise InvalidRequest(f"{where} must be an address, or a data: URL in base64")
    try:
        image = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{where} is not valid base64") from None
    media_type = head.removesuffix(";base64")
    if not media_type:
        raise InvalidRequest(f"{where} names no media type (data:image/png;base64,...)")
    return ImagePart(data=image, media_type=media_type, extra=extra)


def _calls(message: Fields) -> list[Part]:
    calls: list[Part] = []
    for i, entry in enumerate(message.list("tool_calls") or ()):
        call = Fields.of(entry, message.place(f"tool_calls[{i}]"))
        kind = call.text("type") or "function"
        if kind not in ("function", "custom"):
            raise InvalidRequest(f"{call.place('type')} must be function or custom, not {kind!r}")
        inner = call.inner(kind)
        extra = {key: value for key, value in call.raw.items() if key not in _CALL and value is not None}
        signature = _signature(extra)
        calls.append(
            ToolCallPart(
                id=call.text("id", required=True),
                name=inner.text("name", required=True),
                arguments=inner.text("input" if kind == "custom" else "arguments") or "",
                kind="custom" if kind == "custom" else "function",
                signature=signature,
                extra=extra or None,
            )
        )
    if message.get("function_call") is not None:
        legacy = message.inner("function_call")
        name, arguments = legacy.text("name", required=True), legacy.text("arguments") or ""
        calls.append(ToolCallPart(id="", name=name, arguments=arguments))
    return calls


def _signature(extra: dict[str, Any]) -> str | None:
    """Takes Gemini's seal out of ``extra``, if that is all that extra_content has."""
    match extra.get("extra_content"):
        case {"google": {"thought_signature": str(signature), **rest}, **others} if not rest and not others:
            del extra["extra_content"]
            return signature
    return None


def _reasoning(message: Fields) -> list[Part]:
    parts: list[Part] = []
    for i, entry in enumerate(message.list("reasoning_details") or ()):
        detail = Fields.of(entry, message.place(f"reasoning_details[{i}]"))
        extra = {key: value for key, value in detail.raw.items() if key not in _DETAIL and value is not None}
        number = detail.get("index")
        if number is not None and number != i:
            extra["index"] = number
        kind = detail.text("type", required=True)
        parts.append(
            ReasoningPart(
                text=detail.text("summary" if kind == "reasoning.summary" else "text") or "",
                signature=detail.text("signature"),
                redacted=detail.text("data") if kind == "reasoning.encrypted" else None,
                kind="summary" if kind == "reasoning.summary" else None,
                id=detail.text("id"),
                extra=extra or None,
            )
        )
    for field in ("reasoning_content", "reasoning"):
        text = message.text(field)
        if text and not parts:
            parts.append(ReasoningPart(text=text))
    return parts
