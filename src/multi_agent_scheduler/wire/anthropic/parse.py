"""The JSON body of ``POST /v1/messages``, as clients send it, to a request."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ...errors import InvalidRequest
from ...request import (
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    Request,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
    UnknownPart,
)
from .vocabulary import PROTOCOL, TOOL_USES

__all__ = ["parse_request"]

_FIELDS: Final = frozenset(
    {
        "max_tokens",
        "messages",
        "model",
        "output_config",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
    }
)
_CHOICES: Final = {"auto": "auto", "none": "none", "any": "required"}
_TOOL: Final = frozenset({"name", "description", "input_schema", "strict"})


def parse_request(body: Mapping[str, Any]) -> tuple[Request, bool]:
    """The request, and whether the client wants a stream.

    A user turn with tool results becomes a tool message and, for the rest, a user message. Fields that are not known
    go to ``extra``, those of parts and tools into theirs; content blocks that are not known, results of the provider's
    tools among them, are kept as they are. A field that is null is a field that is not there.

    Raises :class:`~multi_agent_scheduler.errors.InvalidRequest` naming the JSON path of a value of the wrong type.
    """
    if not isinstance(body, Mapping):
        raise InvalidRequest(f"the body must be a JSON object, not {_kind(body)}")
    extra = {key: value for key, value in body.items() if key not in _FIELDS}
    fields: dict[str, Any] = {
        "model": _maybe(body, "model", str),
        "max_tokens": _maybe(body, "max_tokens", int),
        "temperature": _number(body, "temperature"),
        "top_p": _number(body, "top_p"),
    }
    stops = _maybe(body, "stop_sequences", list) or []
    fields["stop"] = tuple(_typed(stop, str, f"stop_sequences[{number}]") for number, stop in enumerate(stops))
    tools = _maybe(body, "tools", list) or []
    fields["tools"] = tuple(_tool(tool, f"tools[{number}]") for number, tool in enumerate(tools))
    _choice(body, fields, extra)
    _output(body, fields, extra)
    messages = _system(body)
    turns = _typed(body.get("messages"), list, "messages")
    if not turns:
        raise InvalidRequest("messages must have at least one message")
    for number, turn in enumerate(turns):
        messages += _turn(turn, f"messages[{number}]")
    request = Request(messages=tuple(messages), extra=extra, protocol=PROTOCOL, **fields)
    return request, bool(_maybe(body, "stream", bool))


def _choice(body: Mapping[str, Any], fields: dict[str, Any], extra: dict[str, Any]) -> None:
    choice = _maybe(body, "tool_choice", dict)
    if choice is None:
        return
    kind = choice.get("type")
    if kind == "tool":
        fields["tool_choice"] = f"tool:{_typed(choice.get('name'), str, 'tool_choice.name')}"
    elif isinstance(kind, str) and kind in _CHOICES:
        fields["tool_choice"] = _CHOICES[kind]
    else:
        raise InvalidRequest(f"tool_choice.type must be auto, any, none or tool, not {kind!r}")
    alone = _maybe(choice, "disable_parallel_tool_use", bool, "tool_choice.")
    if alone is not None:
        fields["parallel_tool_calls"] = not alone
    if choice.keys() - {"type", "name", "disable_parallel_tool_use"}:
        extra["tool_choice"] = choice


def _output(body: Mapping[str, Any], fields: dict[str, Any], extra: dict[str, Any]) -> None:
    config = _maybe(body, "output_config", dict)
    if config is None:
        return
    known = {"effort"}
    fields["reasoning_effort"] = _maybe(config, "effort", str, "output_config.")
    form = _maybe(config, "format", dict, "output_config.")
    if form is not None and form.get("type") == "json_schema":
        fields["schema"] = _typed(form.get("schema"), dict, "output_config.format.schema")
        if form.keys() == {"type", "schema"}:
            known.add("format")
    if {key for key, value in config.items() if value is not None} - known:
        extra["output_config"] = config  # it is merged last, so that what has no field of ours survives


def _tool(tool: Any, path: str) -> Tool:
    tool = _typed(tool, dict, path)
    kind = _maybe(tool, "type", str, f"{path}.")
    if kind is not None and kind != "custom":  # a tool of the provider's
        name = tool.get("name") or kind
        return Tool(name=_typed(name, str, f"{path}.name"), raw=tool)
    return Tool(
        name=_typed(tool.get("name"), str, f"{path}.name"),
        description=_maybe(tool, "description", str, f"{path}."),
        parameters=_typed(tool.get("input_schema"), dict, f"{path}.input_schema"),
        strict=_maybe(tool, "strict", bool, f"{path}."),
        extra=_rest(tool, _TOOL),
    )


# --- messages -----------------------------------------------------------------------------------------------------


def _system(body: Mapping[str, Any]) -> list[Message]:
    system = body.get("system")
    if system is None:
        return []
    return [Message("system", tuple(_content(system, "system")))]


def _turn(turn: Any, path: str) -> list[Message]:
    turn = _typed(turn, dict, path)
    role = turn.get("role")
    if role not in ("user", "assistant", "system"):
        raise InvalidRequest(f"{path}.role must be user, assistant or system, not {role!r}")
    parts = _content(turn.get("content"), f"{path}.content")
    if role != "user":
        return [Message(role, tuple(parts))]
    runs: list[tuple[bool, list[Part]]] = []
    for part in parts:
        result = isinstance(part, ToolResultPart)
        if not runs or runs[-1][0] != result:
            runs.append((result, []))
        runs[-1][1].append(part)
    return [Message("tool" if result else "user", tuple(run)) for result, run in runs] or [Message("user", ())]


def _content(content: Any, path: str) -> list[Part]:
    if isinstance(content, str):
        return [TextPart(text=content)]
    if not isinstance(content, list):
        raise InvalidRequest(f"{path} must be a string or a list of content blocks, not {_kind(content)}")
    return [_part(block, f"{path}[{number}]") for number, block in enumerate(content)]


def _part(block: Any, path: str) -> Part:
    block = _typed(block, dict, path)
    kind = _typed(block.get("type"), str, f"{path}.type")
    if kind == "text":
        text = _typed(block.get("text"), str, f"{path}.text")
        return TextPart(text=text, extra=_rest(block, {"type", "text"}))
    if kind == "image":
        return _image(block, path)
    if kind in TOOL_USES:
        return _tool_call(block, kind, path)
    if kind == "tool_result":
        return _tool_result(block, path)
    if kind == "thinking" and block.get("signature") is not None:
        return ReasoningPart(
            text=_typed(block.get("thinking"), str, f"{path}.thinking"),
            signature=_typed(block["signature"], str, f"{path}.signature"),
            extra=_rest(block, {"type", "thinking", "signature"}),
        )
    if kind == "redacted_thinking":
        sealed = _typed(block.get("data"), str, f"{path}.data")
        return ReasoningPart(redacted=sealed, extra=_rest(block, {"type", "data"}))
    return UnknownPart(raw=block, protocol=PROTOCOL)


def _image(block: dict[str, Any], path: str) -> Part:
    source = _typed(block.get("source"), dict, f"{path}.source")
    extra = _rest(block, {"type", "source"})
    kind = source.get("type")
    if kind == "url":
        return ImagePart(url=_typed(source.get("url"), str, f"{path}.source.url"), extra=extra)
    if kind != "base64":
        return UnknownPart(raw=block, protocol=PROTOCOL)
    text = _typed(source.get("data"), str, f"{path}.source.data")
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise InvalidRequest(f"{path}.source.data must be base64") from None
    media_type = _typed(source.get("media_type"), str, f"{path}.source.media_type")
    return ImagePart(data=data, media_type=media_type, extra=extra)


def _tool_call(block: dict[str, Any], kind: str, path: str) -> Part:
    extra = _rest(block, {"type", "id", "name", "input"}) or {}
    if kind == "mcp_tool_use":
        extra["type"] = kind
    return ToolCallPart(
        id=_typed(block.get("id"), str, f"{path}.id"),
        name=_typed(block.get("name"), str, f"{path}.name"),
        arguments=msgspec.json.encode(_typed(block.get("input"), dict, f"{path}.input")).decode(),
        kind="function" if kind == "tool_use" else "server",
        extra=extra or None,
    )


def _tool_result(block: dict[str, Any], path: str) -> Part:
    content = block.get("content")
    pieces: list[TextPart | ImagePart | UnknownPart] = []
    for number, part in enumerate([] if content is None else _content(content, f"{path}.content")):
        if isinstance(part, TextPart | ImagePart | UnknownPart):
            pieces.append(part)
        else:  # only a list has other blocks
            pieces.append(UnknownPart(raw=block["content"][number], protocol=PROTOCOL))
    return ToolResultPart(
        id=_typed(block.get("tool_use_id"), str, f"{path}.tool_use_id"),
        content=tuple(pieces),
        is_error=bool(_maybe(block, "is_error", bool, f"{path}.")),
        extra=_rest(block, {"type", "tool_use_id", "content", "is_error"}),
    )


# --- types --------------------------------------------------------------------------------------------------------

_WORDS: Final = {str: "a string", int: "a whole number", bool: "true or false", list: "a list", dict: "an object"}


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, float):
        return "a number"
    return "null" if value is None else _WORDS.get(type(value), type(value).__name__)


def _typed(value: Any, kind: type, path: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InvalidRequest(f"{path} must be {_WORDS[kind]}, not {_kind(value)}")
    return value


def _maybe(fields: Mapping[str, Any], name: str, kind: type, where: str = "") -> Any:
    value = fields.get(name)
    if kind is int and isinstance(value, float) and value.is_integer():  # JSON does not tell 5.0 from 5
        value = int(value)
    return None if value is None else _typed(value, kind, f"{where}{name}")


def _number(fields: Mapping[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(f"{name} must be a number, not {_kind(value)}")
    return value


def _rest(fields: dict[str, Any], known: frozenset[str] | set[str]) -> dict[str, Any] | None:
    return {key: value for key, value in fields.items() if key not in known} or None
