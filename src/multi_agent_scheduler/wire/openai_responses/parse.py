"""Reading the body of ``POST /v1/responses`` into a request: what a server needs to understand a client.

Types are checked where a wrong one would change the meaning, and the error names the JSON path; whatever is unknown
is kept: top-level fields, those of parts and tools in the ``extra`` of each, those of a message under ``message`` in
its first part's ``extra``, content parts and items of unknown types as UnknownPart. ``build_request`` of the result
has every field again, with four liberties: a string as content becomes a list of one part, a tool's output of one
text a string, a first system message becomes ``instructions``, and fields that are null are left out.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ...errors import InvalidRequest
from ...request import (
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    Request,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
    UnknownPart,
)
from .build import DEFAULT_SCHEMA_NAME, is_custom
from .outcome import PROTOCOL

__all__ = ["parse_request"]

_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.DOTALL)
_WITHOUT_INPUT: Final = ("previous_response_id", "conversation", "prompt")
_TEXTS: Final = frozenset({"input_text", "output_text", "text"})


def parse_request(body: Mapping[str, Any]) -> tuple[Request, bool]:
    """The request, and whether the answer is to be streamed.

    Raises :class:`~multi_agent_scheduler.errors.InvalidRequest` naming the JSON path of what is wrong.
    """
    if not isinstance(body, Mapping):
        raise InvalidRequest("the body must be a JSON object")
    extra = dict(body)
    fields: dict[str, Any] = {}
    for name, key, kinds in (
        ("model", "model", (str,)),
        ("max_tokens", "max_output_tokens", (int,)),
        ("temperature", "temperature", (int, float)),
        ("top_p", "top_p", (int, float)),
        ("parallel_tool_calls", "parallel_tool_calls", (bool,)),
    ):
        value = extra.pop(key, None)
        if value is not None:
            fields[name] = _typed(value, kinds, key)
    stream = extra.pop("stream", None)
    if stream is not None and not isinstance(stream, bool):
        raise _wrong("stream", "true or false", stream)
    instructions = extra.pop("instructions", None)
    messages = _Turns()
    if instructions is not None:
        messages.add(Message("system", (TextPart(text=_typed(instructions, (str,), "instructions")),)))
    given = extra.pop("input", None)
    if given is None and not any(extra.get(name) for name in _WITHOUT_INPUT):
        raise InvalidRequest("input: is required: a string, or a list of items")
    _input(given, messages)
    fields["messages"] = tuple(messages.done())
    tools = extra.pop("tools", None)
    if tools is not None:
        listed = _typed(tools, (list,), "tools")
        fields["tools"] = tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(listed))
    _tool_choice(extra, fields)
    _text(extra, fields)
    _reasoning(extra, fields)
    return Request(**fields, extra=extra, protocol=PROTOCOL), bool(stream)


def _wrong(path: str, expected: str, value: Any) -> InvalidRequest:
    shown = repr(value)
    return InvalidRequest(f"{path}: must be {expected}, not {shown if len(shown) <= 80 else shown[:77] + '...'}")


_NAMES: Final = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", list: "a list",
                 dict: "an object"}  # fmt: skip


def _typed(value: Any, kinds: tuple[type, ...], path: str) -> Any:
    if kinds == (int,) and isinstance(value, float) and value.is_integer():  # JSON does not tell 5.0 from 5
        return int(value)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise _wrong(path, _NAMES[kinds[-1]], value)
    return value


def _field(raw: Mapping[str, Any], name: str, path: str) -> str:
    if name not in raw:
        raise InvalidRequest(f"{path}.{name}: is required")
    text: str = _typed(raw[name], (str,), f"{path}.{name}")
    return text


# --- input ------------------------------------------------------------------------------------------------------


class _Turns:
    """Items gathered to messages: what an assistant said, thought and called in a row is one message."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._assistant: list[Part] = []
        self._spoke = False  # the last part of the assistant's message came from a message item
        self.custom: set[str] = set()

    def add(self, message: Message) -> None:
        self._close()
        self._messages.append(message)

    def assistant(self, parts: list[Part], *, message: bool = False) -> None:
        if message and self._spoke:
            self._close()
        self._assistant += parts
        self._spoke = message

    def done(self) -> list[Message]:
        self._close()
        return self._messages

    def _close(self) -> None:
        if self._assistant:
            self._messages.append(Message("assistant", tuple(self._assistant)))
        self._assistant = []
        self._spoke = False


def _input(given: Any, turns: _Turns) -> None:
    if given is None:
        return
    if isinstance(given, str):
        turns.add(Message("user", (TextPart(text=given),)))
        return
    if not isinstance(given, list):
        raise _wrong("input", "a string, or a list of items", given)
    turns.custom = {
        item["call_id"]
        for item in given
        if isinstance(item, dict) and item.get("type") == "custom_tool_call" and isinstance(item.get("call_id"), str)
    }
    for index, item in enumerate(given):
        path = f"input[{index}]"
        _item(_typed(item, (dict,), path), path, turns)


def _item(item: dict[str, Any], path: str, turns: _Turns) -> None:
    kind = item.get("type")
    if kind == "message" or (kind is None and "role" in item):
        _message(item, path, turns)
    elif kind == "function_call":
        turns.assistant([_call(item, path, "arguments")])
    elif kind == "custom_tool_call":
        turns.assistant([_call(item, path, "input")])
    elif kind in ("function_call_output", "custom_tool_call_output"):
        turns.add(Message("tool", (_result(item, path, turns.custom),)))
    elif kind == "reasoning":
        turns.assistant(_reasoning_parts(item, path))
    elif not isinstance(kind, str):
        raise InvalidRequest(f"{path}.type: must be the type of an item, not {kind!r}")
    elif kind.endswith(("_output", "_response")):
        turns.add(Message("tool", (UnknownPart(raw=item, protocol=PROTOCOL),)))
    else:
        turns.assistant([UnknownPart(raw=item, protocol=PROTOCOL)])


def _message(item: dict[str, Any], path: str, turns: _Turns) -> None:
    role = item.get("role")
    if role not in ("user", "assistant", "system", "developer"):
        raise _wrong(f"{path}.role", "user, assistant, system or developer", role)
    fields = {key: value for key, value in item.items() if key not in ("type", "role", "content") and value is not None}
    if role == "developer":
        fields["role"] = role
    content = item.get("content")
    if isinstance(content, str):
        content = [{"type": "input_text", "text": content}]
    elif not isinstance(content, list):
        raise _wrong(f"{path}.content", "a string, or a list of parts", content)
    parts = [_content(part, f"{path}.content[{index}]") for index, part in enumerate(content)]
    if fields:
        # The first part carries the fields of its message; a message whose first part cannot is passed on as it is.
        first = parts[0] if parts else None
        if first is None or isinstance(first, UnknownPart):
            _whole_message(item, role, turns)
            return
        parts[0] = msgspec.structs.replace(first, extra={**(first.extra or {}), "message": fields})
    if role == "assistant" and not parts:
        _whole_message(item, role, turns)
    elif role == "assistant":
        turns.assistant(parts, message=True)
    else:
        turns.add(Message("user" if role == "user" else "system", tuple(parts)))


def _whole_message(item: dict[str, Any], role: str, turns: _Turns) -> None:
    if role == "assistant":
        turns.assistant([UnknownPart(raw=item, protocol=PROTOCOL)])
        return
    turns.add(Message("user" if role == "user" else "system", (UnknownPart(raw=item, protocol=PROTOCOL),)))


def _content(part: Any, path: str) -> Part:
    _typed(part, (dict,), path)
    kind = part.get("type")
    if not isinstance(kind, str):
        raise InvalidRequest(f"{path}.type: must be the type of a part, not {kind!r}")
    if kind in _TEXTS:
        rest = {key: value for key, value in part.items() if key not in ("type", "text") and value not in (None, [])}
        return TextPart(text=_field(part, "text", path), extra=rest or None)
    if kind == "refusal":
        rest = {key: value for key, value in part.items() if key not in ("type", "refusal") and value is not None}
        return RefusalPart(text=_field(part, "refusal", path), extra=rest or None)
    if kind == "input_image" and part.get("image_url") is not None:
        return _image(part, path)
    return UnknownPart(raw=part, protocol=PROTOCOL)


def _image(part: dict[str, Any], path: str) -> ImagePart:
    url = _typed(part["image_url"], (str,), f"{path}.image_url")
    rest = {key: value for key, value in part.items() if key not in ("type", "image_url") and value is not None}
    inline = _DATA_URL.fullmatch(url)
    if inline is None:
        return ImagePart(url=url, extra=rest or None)
    try:
        data = base64.b64decode(inline.group(2), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{path}.image_url: is not valid base64") from None
    return ImagePart(data=data, media_type=inline.group(1), extra=rest or None)


def _call(item: dict[str, Any], path: str, field: str) -> ToolCallPart:
    known = ("type", "call_id", "name", field, "signature")
    rest = {key: value for key, value in item.items() if key not in known and value is not None}
    signature = item.get("signature")
    return ToolCallPart(
        id=_field(item, "call_id", path),
        name=_field(item, "name", path),
        arguments=_field(item, field, path),
        kind="custom" if field == "input" else "function",
        signature=_typed(signature, (str,), f"{path}.signature") if signature is not None else None,
        extra=rest or None,
    )


def _result(item: dict[str, Any], path: str, custom: set[str]) -> ToolResultPart:
    rest = {key: value for key, value in item.items() if key not in ("type", "call_id", "output") and value is not None}
    call_id = _field(item, "call_id", path)
    if (item["type"] == "custom_tool_call_output") != (call_id in custom):
        rest["type"] = item["type"]  # the call itself is not here to say what kind it was
    output = item.get("output")
    content: list[Any] = []
    if isinstance(output, str):
        content = [TextPart(text=output)] if output else []
    elif isinstance(output, list):
        content = [_content(part, f"{path}.output[{index}]") for index, part in enumerate(output)]
    else:
        raise _wrong(f"{path}.output", "a string, or a list of parts", output)
    return ToolResultPart(id=call_id, content=tuple(content), extra=rest or None)


def _reasoning_parts(item: dict[str, Any], path: str) -> list[Part]:
    known = ("type", "id", "summary", "content", "encrypted_content", "redacted")
    rest = {key: value for key, value in item.items() if key not in known and value is not None}
    for field in ("id", "encrypted_content", "redacted"):
        if item.get(field) is not None:
            _typed(item[field], (str,), f"{path}.{field}")
    found: list[dict[str, Any]] = []
    for field, kind in (("summary", "summary"), ("content", None)):
        texts = item.get(field)
        for index, entry in enumerate(_typed(texts, (list,), f"{path}.{field}") if texts is not None else ()):
            where = f"{path}.{field}[{index}]"
            text = _field(_typed(entry, (dict,), where), "text", where)
            found.append({"text": text, "kind": kind})
    found = found or [{}]
    found[-1] |= {"signature": item.get("encrypted_content"), "redacted": item.get("redacted")}
    found[0]["extra"] = rest or None
    return [ReasoningPart(**fields, id=item.get("id")) for fields in found]


# --- options ----------------------------------------------------------------------------------------------------


def _tool(tool: Any, path: str) -> Tool:
    _typed(tool, (dict,), path)
    kind = _field(tool, "type", path)
    if kind != "function":
        name = tool.get("name")
        return Tool(name=name if isinstance(name, str) and name else kind, raw=tool)
    name = _field(tool, "name", path)
    for field, kinds in (("description", (str,)), ("parameters", (dict,)), ("strict", (bool,))):
        if tool.get(field) is not None:
            _typed(tool[field], kinds, f"{path}.{field}")
    known = ("type", "name", "description", "parameters", "strict")
    rest = {key: value for key, value in tool.items() if key not in known and value is not None}
    return Tool(
        name=name,
        description=tool.get("description"),
        parameters=tool.get("parameters"),
        strict=tool.get("strict"),
        extra=rest or None,
    )


def _tool_choice(extra: dict[str, Any], fields: dict[str, Any]) -> None:
    choice = extra.pop("tool_choice", None)
    if choice is None:
        return
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            raise _wrong("tool_choice", "auto, none, required or an object", choice)
        fields["tool_choice"] = choice
        return
    _typed(choice, (dict,), "tool_choice")
    kind = choice.get("type")
    name = choice.get("name")
    custom = {tool.name for tool in fields.get("tools", ()) if is_custom(tool)}
    plain = isinstance(name, str) and name and set(choice) == {"type", "name"} and kind in ("function", "custom")
    if plain and (kind == "custom") == (name in custom):
        fields["tool_choice"] = f"tool:{name}"
    else:
        extra["tool_choice"] = choice


def _text(extra: dict[str, Any], fields: dict[str, Any]) -> None:
    text = extra.get("text")
    if text is None:
        extra.pop("text", None)
        return
    form = _typed(text, (dict,), "text").get("format")
    if form is None:
        return
    if _typed(form, (dict,), "text.format").get("type") != "json_schema":
        return
    schema = form.get("schema")
    if not isinstance(schema, dict):
        raise _wrong("text.format.schema", "an object", schema)
    name = form.get("name")
    if name is not None and _typed(name, (str,), "text.format.name") != DEFAULT_SCHEMA_NAME:
        fields["schema_name"] = name
    strict = form.get("strict")
    if strict is not None:
        fields["schema_strict"] = _typed(strict, (bool,), "text.format.strict")
    fields["schema"] = schema
    rest = {key: value for key, value in text.items() if key != "format"}
    more = {key: value for key, value in form.items() if key not in ("type", "name", "schema", "strict")}
    if more:
        rest["format"] = more
    if rest:
        extra["text"] = rest
    else:
        del extra["text"]


def _reasoning(extra: dict[str, Any], fields: dict[str, Any]) -> None:
    reasoning = extra.pop("reasoning", None)
    if reasoning is None:
        return
    rest = dict(_typed(reasoning, (dict,), "reasoning"))
    effort = rest.pop("effort", None)
    if effort is not None:
        fields["reasoning_effort"] = _typed(effort, (str,), "reasoning.effort")
    if rest:
        extra["reasoning"] = rest
