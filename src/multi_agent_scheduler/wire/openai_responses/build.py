"""Writing a request as the body of ``POST /v1/responses``.

``store`` is not sent: nothing here relies on what the provider stores, and servers other than OpenAI's may not know
the field. OpenAI keeps responses by default; ``extra={"store": False}`` keeps it from that. ``extra`` goes to the top
level last; its ``text`` and ``reasoning`` are merged into those that the request made, field by field.

The ``extra`` of a part or a tool goes into its object as it is; ``message`` in the ``extra`` of a text, refusal or
image holds fields of the message around it (``id``, ``status``, ``phase``), and begins a message of its own. A tool
result's ``is_error`` and ``name`` have no field here: its text says what went wrong. A ``signature`` on a call is
another provider's, and is left out.
"""

from __future__ import annotations

import base64
from typing import Any, Final

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
from .outcome import PROTOCOL

__all__ = ["DEFAULT_SCHEMA_NAME", "build_request", "is_custom"]

DEFAULT_SCHEMA_NAME: Final = "answer"
"""The name of a schema that has none; the API asks for one."""

_MERGED: Final = ("reasoning", "text")


def build_request(request: Request, *, model: str, stream: bool = True) -> dict[str, Any]:
    """The JSON body. Raises :class:`~multi_agent_scheduler.errors.InvalidRequest` for what the API cannot express."""
    for name, given in (("stop", bool(request.stop)), ("seed", request.seed is not None)):
        if given:
            raise InvalidRequest(f"{name}: the Responses API has no such field; leave it out, or use the chat API")
    messages = request.messages
    made: dict[str, Any] = {"model": model}
    first = 0
    if messages and _is_instructions(messages[0]):
        made["instructions"] = messages[0].parts[0].text  # type: ignore[union-attr]
        first = 1
    writer = _Input(messages)
    for index in range(first, len(messages)):
        writer.message(messages[index], f"messages[{index}]")
    made["input"] = writer.items
    optional = {
        "max_output_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "parallel_tool_calls": request.parallel_tool_calls,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request),
        "text": _text(request),
        "reasoning": {"effort": request.reasoning_effort} if request.reasoning_effort is not None else None,
    }
    made |= {key: value for key, value in optional.items() if value is not None}
    made["stream"] = stream
    for key, value in request.extra.items():
        made[key] = _merged(made.get(key), value) if key in _MERGED else value
    return made


def _merged(made: Any, extra: Any) -> Any:
    if not isinstance(made, dict) or not isinstance(extra, dict):
        return extra
    return {**made, **{key: _merged(made.get(key), value) for key, value in extra.items()}}


def _is_instructions(message: Message) -> bool:
    if message.role != "system" or message.name is not None or len(message.parts) != 1:
        return False
    part = message.parts[0]
    return type(part) is TextPart and not part.extra


def _own(part: Part) -> tuple[dict[str, Any], dict[str, Any]]:
    """A part's extra fields, and those of the message around it."""
    fields = dict(part.extra or {})
    around = fields.pop("message", None)
    return fields, around if isinstance(around, dict) else {}


class _Input:
    """The input items, as they are made."""

    def __init__(self, messages: tuple[Message, ...]) -> None:
        self.items: list[dict[str, Any]] = []
        self._custom = {
            part.id
            for message in messages
            for part in message.parts
            if isinstance(part, ToolCallPart) and part.kind == "custom"
        }
        self._content: list[Any] | None = None  # of the message that is being made
        self._reasoning: tuple[str, dict[str, Any]] | None = None  # the item that further parts with its id join

    def message(self, message: Message, path: str) -> None:
        if message.name is not None:
            raise InvalidRequest(f"{path}.name: the Responses API has no names of participants")
        self._content = self._reasoning = None
        for index, part in enumerate(message.parts):
            self._part(message.role, part, f"{path}.parts[{index}]")
        if not message.parts:
            self._join(message.role, {})

    def _part(self, role: str, part: Part, path: str) -> None:
        extra, around = _own(part)
        match part:
            case ToolCallPart():
                self._item(_call(part, path) | extra)
            case ToolResultPart():
                self._item(self._result(part, path) | extra)
            case ReasoningPart():
                self._reason(part, path, extra)
            case UnknownPart() if part.protocol not in ("", PROTOCOL):
                raise InvalidRequest(f"{path}: a part of the {part.protocol} protocol cannot be sent here")
            case UnknownPart() if not _is_content(role, part.raw):
                self._item(part.raw)
            case _:
                self._join(role, around).append(_content(role, part, path, extra))

    def _item(self, item: dict[str, Any]) -> None:
        self._content = self._reasoning = None
        self.items.append(item)

    def _join(self, role: str, fields: dict[str, Any]) -> list[Any]:
        """The content of the message that is being made; fields of its own begin another one."""
        if self._content is None or fields:
            content: list[Any] = []
            self._item({"type": "message", "role": role, "content": content, **fields})
            self._content = content
        return self._content

    def _reason(self, part: ReasoningPart, path: str, extra: dict[str, Any]) -> None:
        if part.redacted is not None:
            raise InvalidRequest(f"{path}.redacted: reasoning that another provider encrypted cannot be sent here")
        if self._reasoning is not None and part.id is not None and self._reasoning[0] == part.id and not extra:
            item = self._reasoning[1]
        else:
            item = {"type": "reasoning", "summary": []}
            if part.id is not None:
                item["id"] = part.id
            item |= extra
            self._item(item)
            self._reasoning = (part.id, item) if part.id is not None else None
        if part.text:
            if part.kind == "summary":
                item["summary"].append({"type": "summary_text", "text": part.text})
            else:
                item.setdefault("content", []).append({"type": "reasoning_text", "text": part.text})
        if part.signature is not None:
            item["encrypted_content"] = part.signature

    def _result(self, part: ToolResultPart, path: str) -> dict[str, Any]:
        kind = "custom_tool_call_output" if part.id in self._custom else "function_call_output"
        output: str | list[Any] = ""
        if len(part.content) == 1 and type(part.content[0]) is TextPart and not part.content[0].extra:
            output = part.content[0].text
        elif part.content:
            output = []
            for index, entry in enumerate(part.content):
                where = f"{path}.content[{index}]"
                if isinstance(entry, UnknownPart) and entry.protocol not in ("", PROTOCOL):
                    raise InvalidRequest(f"{where}: a part of the {entry.protocol} protocol cannot be sent here")
                output.append(_content("user", entry, where, _own(entry)[0]))
        return {"type": kind, "call_id": part.id, "output": output}


def _is_content(role: str, raw: Any) -> bool:
    """Whether an unknown part belongs inside a message. Items (a search, an MCP call) are the assistant's or a
    tool's.
    """
    kind = raw.get("type") if isinstance(raw, dict) else None
    if role in ("user", "system"):
        return kind != "message"
    return role == "assistant" and isinstance(kind, str) and kind.startswith(("output_", "input_"))


def _content(role: str, part: Part, path: str, extra: dict[str, Any]) -> Any:
    match part:
        case TextPart():
            return {"type": "output_text" if role == "assistant" else "input_text", "text": part.text, **extra}
        case RefusalPart() if role == "assistant":
            return {"type": "refusal", "refusal": part.text, **extra}
        case ImagePart() if role != "assistant":
            return {"type": "input_image", "image_url": _image_url(part, path), **extra}
        case UnknownPart():
            return part.raw
    raise InvalidRequest(f"{path}: a {type(part).__name__} cannot be part of a message of the {role}")


def _image_url(part: ImagePart, path: str) -> str:
    if part.url is not None:
        return part.url
    if part.data is None:
        raise InvalidRequest(f"{path}: an image needs a url, or data with its media_type")
    if not part.media_type:
        raise InvalidRequest(f"{path}.media_type: an image given as data needs one (image/png, say)")
    return f"data:{part.media_type};base64,{base64.b64encode(part.data).decode()}"


def _call(part: ToolCallPart, path: str) -> dict[str, Any]:
    if part.kind == "server":
        raise InvalidRequest(f"{path}.kind: a call that ran at another provider cannot be sent here")
    if part.kind == "custom":
        return {"type": "custom_tool_call", "call_id": part.id, "name": part.name, "input": part.arguments}
    return {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": part.arguments}


def _tool(tool: Tool) -> dict[str, Any]:
    if tool.raw is not None:
        return tool.raw
    made: dict[str, Any] = {"type": "function", "name": tool.name}
    if tool.description is not None:
        made["description"] = tool.description
    made["parameters"] = tool.parameters if tool.parameters is not None else {"type": "object", "properties": {}}
    if tool.strict is not None:
        made["strict"] = tool.strict
    return {**made, **(tool.extra or {})}


def is_custom(tool: Tool) -> bool:
    """Whether a tool takes free text instead of JSON."""
    return tool.raw is not None and tool.raw.get("type") == "custom"


def _tool_choice(request: Request) -> str | dict[str, str] | None:
    choice = request.tool_choice
    if choice is None or choice in ("auto", "none", "required"):
        return choice
    kind, _, name = choice.partition(":")
    if kind != "tool" or not name:
        raise InvalidRequest(f"tool_choice: must be auto, none, required or tool:NAME, not {choice!r}")
    custom = any(tool.name == name and is_custom(tool) for tool in request.tools)
    return {"type": "custom" if custom else "function", "name": name}


def _text(request: Request) -> dict[str, Any] | None:
    if request.schema is None:
        return None
    form: dict[str, Any] = {
        "type": "json_schema",
        "name": request.schema_name or DEFAULT_SCHEMA_NAME,
        "schema": request.schema,
    }
    if request.schema_strict is not None:
        form["strict"] = request.schema_strict
    return {"format": form}
