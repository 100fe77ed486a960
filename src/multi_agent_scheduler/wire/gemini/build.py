"""A request to the body of ``generateContent`` and ``streamGenerateContent``.

The model and whether the answer is streamed are in Gemini's URL, not in the body. What is decided here:

- Messages of tools that follow each other are one turn, as Gemini wants the results of parallel calls together.
- A result goes as ``{"output": text}`` or ``{"error": ...}``; text that is a JSON object goes as that object.
- A :class:`ReasoningPart` with a signature and no text is the signature of what precedes it.
- Schemas go as JSON Schema (``parametersJsonSchema``, ``responseJsonSchema``), not as Gemini's older subset of OpenAPI.
- ``schema_name``, ``schema_strict`` and a tool's ``strict`` have no place in the protocol and are not sent.
- ``extra`` is merged last, objects key by key, so that ``{"generationConfig": {"topK": 40}}`` leaves the rest in
  place; so is a part's own ``extra``.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Mapping
from typing import Any, Final, assert_never

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
from .finish import PROTOCOL
from .thinking import thinking_config

__all__ = ["build_request", "merged", "reads_as_object"]

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
_MODES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def build_request(request: Request, *, model: str, stream: bool = True) -> dict[str, Any]:  # noqa: ARG001 - as in every protocol
    """The JSON body. ``stream`` changes nothing in it: it chooses the method in the URL.

    Raises :class:`~multi_agent_scheduler.errors.InvalidRequest`, which names the field, for what Gemini has no form
    for: a system message after others, a participant's name, custom tools, other providers' parts,
    ``parallel_tool_calls=False``.
    """
    body: dict[str, Any] = {}
    system = [message for message in request.messages if message.role == "system"]
    if system:
        body["systemInstruction"] = {"parts": _system(request.messages)}
    body["contents"] = _contents(request.messages)
    tools = _tools(request.tools)
    if tools:
        body["tools"] = tools
    if request.tool_choice is not None:
        body["toolConfig"] = {"functionCallingConfig": _choice(request.tool_choice)}
    if request.parallel_tool_calls is False:
        raise InvalidRequest("parallel_tool_calls: Gemini cannot be told to make one call at a time")
    config = _config(request, model)
    if config:
        body["generationConfig"] = config
    return merged(body, request.extra)


def merged(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``extra`` over it; where both have an object, the objects are merged the same way."""
    out = dict(base)
    for key, value in extra.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return out


def _config(request: Request, model: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "maxOutputTokens": request.max_tokens,
        "temperature": request.temperature,
        "topP": request.top_p,
        "stopSequences": list(request.stop) or None,
        "seed": request.seed,
    }
    if request.schema is not None:
        config["responseMimeType"] = "application/json"
        config["responseJsonSchema"] = request.schema
    if request.reasoning_effort is not None:
        config["thinkingConfig"] = thinking_config(request.reasoning_effort, model)
    return {key: value for key, value in config.items() if value is not None}


def _choice(choice: str) -> dict[str, Any]:
    if choice in _MODES:
        return {"mode": _MODES[choice]}
    if choice.startswith("tool:") and len(choice) > len("tool:"):
        return {"mode": "ANY", "allowedFunctionNames": [choice.removeprefix("tool:")]}
    raise InvalidRequest(f"tool_choice must be auto, none, required or tool:NAME, not {choice!r}")


def _tools(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    together: list[dict[str, Any]] | None = None
    for tool in tools:
        if tool.raw is not None:
            found.append(tool.raw)
            together = None
            continue
        declaration: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            declaration["description"] = tool.description
        if tool.parameters is not None:
            declaration["parametersJsonSchema"] = tool.parameters
        if together is None:
            together = []
            found.append({"functionDeclarations": together})
        together.append(declaration)
    return found


def _system(messages: tuple[Message, ...]) -> list[Any]:
    parts: list[Any] = []
    for number, message in enumerate(messages):
        if message.role != "system":
            continue
        if any(before.role != "system" for before in messages[:number]):
            raise InvalidRequest(f"messages[{number}].role: Gemini takes system messages only before all others")
        for place, part in enumerate(message.parts):
            path = f"messages[{number}].parts[{place}]"
            if not isinstance(part, TextPart | UnknownPart):
                raise InvalidRequest(f"{path}: a system message for Gemini has text only, not {_tag(part)}")
            parts.append(_part(part, path, {}))
    return parts


def _contents(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    before = ""
    for number, message in enumerate(messages):
        path = f"messages[{number}]"
        if message.name is not None:
            raise InvalidRequest(f"{path}.name: Gemini has no names for participants")
        if message.role == "system":
            continue
        parts = []
        for place, part in enumerate(message.parts):
            if isinstance(part, ToolCallPart):
                names[part.id] = part.name
            parts.append(_part(part, f"{path}.parts[{place}]", names))
        if message.role == "tool" and before == "tool":
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": "model" if message.role == "assistant" else "user", "parts": parts})
        before = message.role
    return contents


def _part(part: Part, path: str, names: Mapping[str, str]) -> Any:
    match part:
        case TextPart() | RefusalPart():
            made: dict[str, Any] = {"text": part.text}
        case ImagePart():
            made = _image(part, path)
        case ToolCallPart():
            made = _call(part, path)
        case ToolResultPart():
            made = {"functionResponse": _result(part, path, names)}
        case ReasoningPart():
            made = _reasoning(part, path)
        case UnknownPart():
            if part.protocol not in (PROTOCOL, ""):
                raise InvalidRequest(f"{path}: a part in the form of {part.protocol!r}, which Gemini does not know")
            return part.raw
        case _:
            assert_never(part)
    return merged(made, part.extra) if part.extra else made


def _reasoning(part: ReasoningPart, path: str) -> dict[str, Any]:
    if part.redacted is not None:
        raise InvalidRequest(f"{path}.redacted: Gemini cannot read another provider's sealed reasoning")
    made: dict[str, Any] = {"text": part.text}
    if part.text:
        made["thought"] = True
    if part.signature is not None:
        made["thoughtSignature"] = part.signature
    return made


def _call(part: ToolCallPart, path: str) -> dict[str, Any]:
    if part.kind != "function":
        raise InvalidRequest(f"{path}.kind: Gemini knows function calls only, not {part.kind!r} ones")
    try:
        arguments = _decode(part.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest(f"{path}.arguments must be the text of a JSON object, not {part.arguments[:80]!r}")
    call: dict[str, Any] = {"id": part.id, "name": part.name, "args": arguments}
    if not part.id:
        del call["id"]
    made: dict[str, Any] = {"functionCall": call}
    if part.signature is not None:
        made["thoughtSignature"] = part.signature
    return made


def _result(part: ToolResultPart, path: str, names: Mapping[str, str]) -> dict[str, Any]:
    name = part.name or names.get(part.id)
    if not name:
        raise InvalidRequest(f"{path}.name: Gemini needs the function's name, and no call {part.id!r} comes before")
    texts: list[str] = []
    others: list[Any] = []
    for place, item in enumerate(part.content):
        if isinstance(item, TextPart):
            texts.append(item.text)
        else:
            others.append(_part(item, f"{path}.content[{place}]", {}))
    text = "".join(texts)
    value = reads_as_object(text)
    if part.is_error:
        response: Any = {"error": text if value is None else value}
    else:
        response = {"output": text} if value is None or is_wrapped(value) else value
    found: dict[str, Any] = {"id": part.id, "name": name, "response": response}
    if not part.id:
        del found["id"]
    if others:
        found["parts"] = others
    return found


def is_wrapped(response: Mapping[str, Any]) -> bool:
    """Whether a response is our own wrapping of a text or an error: Google's "output" and "error" keys."""
    return response.keys() == {"error"} or (response.keys() == {"output"} and isinstance(response["output"], str))


def reads_as_object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is, if writing it again gives the same text."""
    if not text.startswith("{"):
        return None
    try:
        value = _decode(text)
        return value if isinstance(value, dict) and _encode(value) == text.encode() else None
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None


def _image(part: ImagePart, path: str) -> dict[str, Any]:
    if part.data is not None:
        if not part.media_type:
            raise InvalidRequest(f"{path}.media_type: Gemini needs the type of an image's data, image/png for example")
        return _inline(binascii.b2a_base64(part.data, newline=False).decode(), part.media_type)
    if not part.url:
        raise InvalidRequest(f"{path}: an image needs data or a url")
    if part.url.startswith("data:"):
        head, comma, data = part.url.removeprefix("data:").partition(",")
        kind, mark, _ = head.partition(";base64")
        if not comma or not mark or not kind:
            raise InvalidRequest(f"{path}.url: a data: URL for Gemini must be data:TYPE;base64,DATA")
        return _inline(data, kind)
    made: dict[str, Any] = {"fileUri": part.url}
    if part.media_type is not None:
        made["mimeType"] = part.media_type
    return {"fileData": made}


def _inline(data: str, media_type: str) -> dict[str, Any]:
    return {"inlineData": {"mimeType": media_type, "data": data}}


def _tag(part: Part) -> str:
    return str(type(part).__struct_config__.tag)
