"""The body of a chat completions request.

- Reasoning of earlier turns is left out, unless ``reasoning_field`` says in which field the provider takes it: OpenAI
  refuses messages with fields that it does not know. ``"reasoning_content"`` (DeepSeek, Moonshot) and ``"reasoning"``
  (vLLM) take its text, ``"reasoning_details"`` (OpenRouter) all of it, ``"extra_content"`` (Gemini's compatible
  endpoint) no reasoning, but the seals over tool calls.
- ``extra`` of a part goes into the part's object (of a tool result: the message; of an image's ``detail``: image_url).
  An :class:`~multi_agent_scheduler.request.UnknownPart` is an item of the content; one whose ``raw`` has no ``type`` is
  fields of the message itself (``cache_control``, ``prefix``, ``audio``).
- A call or a result without an id takes the older form, ``function_call`` and the role ``function``.
- The protocol cannot say that a tool failed: ``is_error`` is left out, the content of the result tells it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

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
from .finish import PROTOCOL

__all__ = ["DEFAULT_SCHEMA_NAME", "ReasoningField", "build_request"]

ReasoningField: TypeAlias = Literal["reasoning_content", "reasoning", "reasoning_details", "extra_content"]

DEFAULT_SCHEMA_NAME: Final = "answer"
"""The protocol wants a schema to have a name; this one stands for none."""


def build_request(
    request: Request,
    *,
    model: str,
    stream: bool = True,
    token_field: str = "max_tokens",
    include_usage: bool = True,
    system_role: Literal["system", "developer"] = "system",
    reasoning_field: ReasoningField | None = None,
) -> dict[str, Any]:
    """The JSON body for a request; ``request.extra`` is merged last, over everything.

    ``token_field`` is where the provider takes the limit on tokens ("max_completion_tokens" for OpenAI's newer models);
    ``include_usage`` asks a stream for its usage (some providers refuse the option). Raises
    :class:`~multi_agent_scheduler.errors.InvalidRequest` naming the field that the protocol cannot express.
    """
    writer = _Writer(system_role, reasoning_field)
    messages = [entry for index, message in enumerate(request.messages) for entry in writer.message(message, index)]
    options = (
        (token_field, request.max_tokens),
        ("temperature", request.temperature),
        ("top_p", request.top_p),
        ("stop", list(request.stop) or None),
        ("seed", request.seed),
        ("tools", [_tool(tool) for tool in request.tools] or None),
        ("tool_choice", _tool_choice(request)),
        ("parallel_tool_calls", request.parallel_tool_calls),
        ("response_format", _response_format(request)),
        ("reasoning_effort", request.reasoning_effort),
    )
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        **{name: value for name, value in options if value is not None},
    }
    if stream:
        body["stream"] = True
        if include_usage:
            body["stream_options"] = {"include_usage": True}
    extra = dict(request.extra)
    if isinstance(extra.get("stream_options"), dict) and "stream_options" in body:
        extra["stream_options"] = {**body["stream_options"], **extra["stream_options"]}
    return {**body, **extra}


def _tool(tool: Tool) -> dict[str, Any]:
    if tool.raw is not None:
        return tool.raw
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(request: Request) -> Any:
    choice = request.tool_choice
    if choice is None or choice in ("auto", "none", "required"):
        return choice
    if not choice.startswith("tool:") or len(choice) == 5:
        raise InvalidRequest(f"tool_choice must be auto, none, required or tool:NAME, not {choice!r}")
    name = choice[5:]
    custom = any(tool.name == name and tool.raw and tool.raw.get("type") == "custom" for tool in request.tools)
    kind = "custom" if custom else "function"
    return {"type": kind, kind: {"name": name}}


def _response_format(request: Request) -> dict[str, Any] | None:
    if request.schema is None:
        return None
    inner: dict[str, Any] = {"name": request.schema_name or DEFAULT_SCHEMA_NAME, "schema": request.schema}
    if request.schema_strict is not None:
        inner["strict"] = request.schema_strict
    return {"type": "json_schema", "json_schema": inner}


class _Writer:
    """Messages, one by one."""

    def __init__(self, system_role: str, reasoning_field: ReasoningField | None) -> None:
        self._roles = {"system": system_role}
        self._reasoning_field = reasoning_field

    def message(self, message: Message, index: int) -> list[dict[str, Any]]:
        """The entries for a message: itself, and one for each tool result in it, which come first."""
        if len(message.parts) == 1 and message.name is None and message.role != "tool":  # nearly all of them
            part = message.parts[0]
            if type(part) is TextPart and not part.extra:
                return [{"role": self._roles.get(message.role, message.role), "content": part.text}]
        where = f"messages[{index}]"
        results = [
            self._result(part, f"{where}.parts[{place}]", message)
            for place, part in enumerate(message.parts)
            if isinstance(part, ToolResultPart)
        ]
        rest = [(place, part) for place, part in enumerate(message.parts) if not isinstance(part, ToolResultPart)]
        if message.role == "tool":
            for place, part in rest:
                raise InvalidRequest(f"{where}.parts[{place}]: a tool message has tool results, not {_name(part)}")
            return results
        if results and not rest:
            return results
        entry: dict[str, Any] = {"role": self._roles.get(message.role, message.role)}
        if message.name is not None:
            entry["name"] = message.name
        content: list[Any] = []
        for place, part in rest:
            if self._beside(part, entry, f"{where}.parts[{place}]", message.role):
                continue
            content.append(_content(part, f"{where}.parts[{place}]", message.role))
        self._reasoning([part for _, part in rest if isinstance(part, ReasoningPart)], entry)
        if content or message.role != "assistant":
            entry["content"] = _plain(content)
        else:
            entry.setdefault("content", None)
        return [*results, entry]

    def _beside(self, part: Part, entry: dict[str, Any], where: str, role: str) -> bool:
        """What is a field of the message; false for what belongs into its content."""
        if isinstance(part, UnknownPart) and isinstance(part.raw, dict) and "type" not in part.raw:
            entry.update(_own(part, where))
            return True
        if not isinstance(part, ToolCallPart | RefusalPart | ReasoningPart):
            return False
        if role != "assistant":
            raise InvalidRequest(f"{where}: only an assistant message can have {_name(part)}")
        match part:
            case ReasoningPart():
                pass
            case RefusalPart() if "refusal" not in entry and not part.extra:
                entry["refusal"] = part.text
            case RefusalPart():
                return False
            case ToolCallPart(id=""):
                if "function_call" in entry:
                    raise InvalidRequest(f"{where}.id: of several tool calls each needs an id")
                entry["function_call"] = {"name": part.name, "arguments": part.arguments, **(part.extra or {})}
            case ToolCallPart():
                entry.setdefault("tool_calls", []).append(self._call(part, where))
        return True

    def _call(self, part: ToolCallPart, where: str) -> dict[str, Any]:
        if part.kind == "server":
            raise InvalidRequest(f"{where}.kind: chat completions cannot carry a call that a provider ran itself")
        field = "input" if part.kind == "custom" else "arguments"
        call: dict[str, Any] = {"id": part.id, "type": part.kind, part.kind: {"name": part.name, field: part.arguments}}
        if part.signature is not None and self._reasoning_field == "extra_content":
            call["extra_content"] = {"google": {"thought_signature": part.signature}}
        return {**call, **(part.extra or {})}

    def _result(self, part: ToolResultPart, where: str, message: Message) -> dict[str, Any]:
        if message.role not in ("tool", "user"):
            raise InvalidRequest(f"{where}: a tool result belongs into a tool message, not a {message.role} message")
        entry: dict[str, Any] = {"role": "tool", "tool_call_id": part.id} if part.id else {"role": "function"}
        name = part.name or (message.name if message.role == "tool" else None)
        if name:
            entry["name"] = name
        items = [_content(item, f"{where}.content[{place}]", "tool") for place, item in enumerate(part.content)]
        return {**entry, "content": _plain(items), **(part.extra or {})}

    def _reasoning(self, parts: Sequence[ReasoningPart], entry: dict[str, Any]) -> None:
        field = self._reasoning_field
        if field == "reasoning_details":
            details = [detail for index, part in enumerate(parts) for detail in _details(part, index)]
            if details:
                entry[field] = details
        elif field in ("reasoning_content", "reasoning") and any(part.text for part in parts):
            entry[field] = "".join(part.text for part in parts)


def _details(part: ReasoningPart, index: int) -> list[dict[str, Any]]:
    more: dict[str, Any] = {"id": part.id} if part.id is not None else {}
    more = {**more, "index": index, **(part.extra or {})}
    details: list[dict[str, Any]] = []
    if part.text or part.signature is not None or part.redacted is None:
        kind, field = ("summary", "summary") if part.kind == "summary" else ("text", "text")
        seal = {"signature": part.signature} if part.signature is not None else {}
        details.append({"type": f"reasoning.{kind}", field: part.text, **seal, **more})
    if part.redacted is not None:
        details.append({"type": "reasoning.encrypted", "data": part.redacted, **more})
    return details


def _content(part: Part, where: str, role: str) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text, **(part.extra or {})}
        case RefusalPart():
            return {"type": "refusal", "refusal": part.text, **(part.extra or {})}
        case ImagePart() if role == "user":
            return _image(part, where)
        case UnknownPart():
            return _own(part, where)
        case _:
            raise InvalidRequest(f"{where}: chat completions cannot carry {_name(part)} in a {role} message")


def _image(part: ImagePart, where: str) -> dict[str, Any]:
    if (part.url is None) == (part.data is None):
        raise InvalidRequest(f"{where}: an image needs a url or data, and not both")
    url = part.url
    if part.data is not None:
        if not part.media_type:
            raise InvalidRequest(f"{where}.media_type: an image given as data needs its media type")
        url = f"data:{part.media_type};base64,{base64.b64encode(part.data).decode()}"
    extra = dict(part.extra or {})
    link = {"url": url, **({"detail": extra.pop("detail")} if "detail" in extra else {})}
    return {"type": "image_url", "image_url": link, **extra}


def _own(part: UnknownPart, where: str) -> dict[str, Any]:
    if part.protocol not in ("", PROTOCOL):
        raise InvalidRequest(f"{where}: a part of the protocol {part.protocol} cannot be sent as a chat completion")
    if not isinstance(part.raw, dict):
        raise InvalidRequest(f"{where}.raw must be an object, not {type(part.raw).__name__}")
    return {**part.raw, **(part.extra or {})}


def _plain(content: list[Any]) -> Any:
    """A lone text as a plain string, which every provider takes."""
    if len(content) == 1 and content[0].keys() == {"type", "text"} and content[0]["type"] == "text":
        return content[0]["text"]
    return content


def _name(part: Part) -> str:
    kind = str(type(part).__struct_config__.tag).replace("_", " ")
    return f"{'an' if kind[0] in 'aiu' else 'a'} {kind} part"
