"""A request to the JSON body of ``POST /v1/messages`` (https://docs.anthropic.com/en/api/messages)."""

from __future__ import annotations

import binascii
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
from .vocabulary import PROTOCOL, input_object

__all__ = ["build_request"]

_decode: Final = msgspec.json.Decoder().decode
_EFFORTS: Final = {"minimal": "low"}  # OpenAI's lowest; the protocol's own words pass as they are
_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}


def build_request(request: Request, *, model: str, stream: bool = True, max_tokens: int = 4096) -> dict[str, Any]:
    """The body of a Messages call; ``request.extra`` is merged last, at the top level.

    ``max_tokens`` stands in where the request has none, since the API demands it; a thinking budget in ``extra`` is
    added to it, since the API counts thinking within it. System messages at the front become ``system``; later ones
    stay where they are, for models that take them there. Tool messages, and the user message that follows them, are
    one user turn; other neighbours of the same role stay apart, as the API joins them itself. ``reasoning_effort`` is
    ``output_config.effort`` ("none" disables thinking), ``schema`` is ``output_config.format``, which is always strict
    and has no name.

    Left out, because the API would refuse them and they carry nothing that it lacks: reasoning without a signature or
    with another provider's marks, empty texts beside other parts, the names of tool messages. A custom tool's free text
    is the field ``input`` of its input; arguments that are no JSON object go under ``INVALID_JSON``.

    Raises :class:`~multi_agent_scheduler.errors.InvalidRequest` naming the field for what the protocol cannot say.
    """
    if request.seed is not None:
        raise InvalidRequest("seed: the Anthropic Messages API has no seed")
    system, messages = _conversation(request.messages)
    limit = request.max_tokens
    if limit is None:
        thinking = request.extra.get("thinking")
        budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
        limit = max_tokens + (budget if isinstance(budget, int) else 0)
    body: dict[str, Any] = {"model": model, "max_tokens": limit}
    if system:
        body["system"] = _short(system)
    body["messages"] = messages
    if stream:
        body["stream"] = True
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    choice = _tool_choice(request)
    if choice is not None:
        body["tool_choice"] = choice
    _output(request, body)
    body.update(request.extra)
    return body


def _output(request: Request, body: dict[str, Any]) -> None:
    config: dict[str, Any] = {}
    effort = request.reasoning_effort
    if effort == "none":
        body["thinking"] = {"type": "disabled"}
    elif effort is not None:
        config["effort"] = _EFFORTS.get(effort, effort)
    if request.schema is not None:
        config["format"] = {"type": "json_schema", "schema": request.schema}
    if config:
        body["output_config"] = config


def _tool(tool: Tool) -> dict[str, Any]:
    if tool.raw is not None:
        return tool.raw
    made: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        made["description"] = tool.description
    made["input_schema"] = {"type": "object", "properties": {}} if tool.parameters is None else tool.parameters
    if tool.strict is not None:
        made["strict"] = tool.strict
    return {**made, **tool.extra} if tool.extra else made


def _tool_choice(request: Request) -> dict[str, Any] | None:
    said = request.tool_choice
    choice: dict[str, Any] | None = None
    if said is not None:
        kind, _, name = said.partition(":")
        if said in _CHOICES:
            choice = {"type": _CHOICES[said]}
        elif kind == "tool" and name:
            choice = {"type": "tool", "name": name}
        else:
            raise InvalidRequest(f"tool_choice must be auto, none, required or tool:NAME, not {said!r}")
    if request.parallel_tool_calls is not None and said != "none" and (choice is not None or request.tools):
        choice = choice or {"type": "auto"}
        choice["disable_parallel_tool_use"] = not request.parallel_tool_calls
    return choice


# --- messages -----------------------------------------------------------------------------------------------------


def _conversation(messages: tuple[Message, ...]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The blocks of ``system``, and the turns."""
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    joinable = False  # the last turn is of tool results, which more of them or a user's words may join
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        role = message.role
        if message.name is not None and role != "tool":
            raise InvalidRequest(f"{where}.name: Anthropic has no names of participants; say it in the text")
        blocks = _blocks(message, where)
        if message.parts and not blocks:
            continue  # reasoning alone that cannot be sent back
        if role == "system" and not turns:
            system += blocks
        elif joinable and role in ("tool", "user"):
            turns[-1]["content"] += blocks
            joinable = role == "tool"
        else:
            turns.append({"role": "user" if role == "tool" else role, "content": blocks})
            joinable = role == "tool"
    if not turns:
        raise InvalidRequest("messages: Anthropic needs at least one message beside the system's")
    for turn in turns:
        turn["content"] = _short(turn["content"])
    return system, turns


def _short(blocks: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A single plain text as a string, the form that everyone writes."""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"} and blocks[0]["type"] == "text":
        return str(blocks[0]["text"])
    return blocks


def _blocks(message: Message, where: str) -> list[dict[str, Any]]:
    several = len(message.parts) > 1
    blocks = []
    for number, part in enumerate(message.parts):
        if several and isinstance(part, TextPart) and not part.text and not part.extra:
            continue  # OpenAI's content: "" beside tool calls; the API refuses empty texts
        place = f"{where}.parts[{number}]"
        fits = {"system": TextPart | UnknownPart, "tool": ToolResultPart | UnknownPart}.get(message.role)
        if fits is not None and not isinstance(part, fits):
            raise InvalidRequest(f"{place}: a {message.role} message cannot hold a {_name(part)} part")
        if message.role == "assistant" and isinstance(part, ToolResultPart):
            raise InvalidRequest(f"{place}: a tool_result part belongs into a tool message, not an assistant's")
        block = _block(part, place)
        if block is not None:
            blocks.append({**block, **part.extra} if part.extra else block)
    return blocks


def _name(part: Part) -> str:
    return str(type(part).__struct_config__.tag)


def _block(part: Part, place: str) -> dict[str, Any] | None:
    match part:
        case TextPart(text=text) | RefusalPart(text=text):
            return {"type": "text", "text": text}
        case ImagePart():
            return {"type": "image", "source": _source(part, place)}
        case ToolCallPart():
            kind = "server_tool_use" if part.kind == "server" else "tool_use"
            if part.kind == "custom":
                given: dict[str, Any] = {"input": part.arguments}
            else:
                given = input_object(part.arguments, _decode)
            return {"type": kind, "id": part.id, "name": part.name, "input": given}
        case ToolResultPart():
            return _result(part, place)
        case ReasoningPart(redacted=sealed) if sealed is not None:
            return {"type": "redacted_thinking", "data": sealed}
        case ReasoningPart(signature=signature) if signature is not None and part.kind is None and part.id is None:
            return {"type": "thinking", "thinking": part.text, "signature": signature}
        case ReasoningPart():
            return None
        case UnknownPart(protocol=protocol, raw=raw) if protocol in (PROTOCOL, "") and isinstance(raw, dict):
            return raw
        case UnknownPart(protocol=protocol):
            raise InvalidRequest(
                f"{place}: a part in the form of {protocol or 'no protocol'} cannot be sent to Anthropic"
            )


def _result(part: ToolResultPart, place: str) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": part.id}
    content = []
    for number, piece in enumerate(part.content):
        made = _block(piece, f"{place}.content[{number}]")
        if made is not None:
            content.append({**made, **piece.extra} if piece.extra else made)
    if content:
        block["content"] = _short(content)
    if part.is_error:
        block["is_error"] = True
    return block


# --- images -------------------------------------------------------------------------------------------------------

_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)


def _source(image: ImagePart, place: str) -> dict[str, Any]:
    if image.data is not None:
        kind = image.media_type or _sniff(image.data)
        if kind is None:
            raise InvalidRequest(f"{place}.media_type: say what kind of image the data is (image/png, image/jpeg ...)")
        data = binascii.b2a_base64(image.data, newline=False).decode()
        return {"type": "base64", "media_type": kind, "data": data}
    url = image.url
    if not url:
        raise InvalidRequest(f"{place}: an image needs a url or data")
    if url[:5] == "data:":
        head, comma, data = url[5:].partition(",")
        kind, _, encoding = head.rpartition(";")
        if not comma or encoding != "base64" or not kind:
            raise InvalidRequest(f"{place}.url: a data URL must look like data:image/png;base64,...")
        return {"type": "base64", "media_type": kind.partition(";")[0], "data": data}
    return {"type": "url", "url": url}


def _sniff(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)
