"""The body of ``generateContent`` to a request: the other direction of :mod:`.build`. Takes camelCase and snake_case.

A call without an id gets ``call_<number>``, a result without one that of the first call of its name that has no
result yet. A signature on a plain text part stays with it, in the part's ``extra``. What a :class:`Request` has no
field for goes into ``extra``, at its place in the body. Gemini's OpenAPI schemas become JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...errors import InvalidRequest
from ...request import Message, Request, Role, TextPart, Tool, ToolResultPart, UnknownPart
from .fields import Fields, camel_keys, listed, mapping
from .finish import PROTOCOL
from .parts import PartReader
from .schemas import to_json_schema
from .thinking import read_effort

__all__ = ["parse_request"]

_ROLES: Final[dict[str, Role]] = {"user": "user", "model": "assistant", "function": "tool", "tool": "tool"}
_CHOICES: Final = {"AUTO": "auto", "NONE": "none", "ANY": "required"}
_DECLARED: Final = frozenset({"name", "description", "parameters", "parametersJsonSchema"})


def parse_request(body: Mapping[str, Any], *, model: str | None = None, stream: bool = True) -> tuple[Request, bool]:
    """The request in a body, and whether the answer is to be streamed.

    ``model`` and ``stream`` are what the URL said: the body does not say it. Raises
    :class:`~multi_agent_scheduler.errors.InvalidRequest`, which names the JSON path, for what cannot be read.
    """
    fields = Fields(camel_keys(mapping(body, "body")), "")
    named = fields.take_str("model")
    messages: list[Message] = []
    system = fields.take("systemInstruction")
    if system is not None:
        messages.append(_system(system))
    contents = listed(fields.take("contents"), "contents")
    if not contents:
        raise InvalidRequest("contents must have at least one content")
    reader = PartReader(contents)
    messages += [_message(content, f"contents[{number}]", reader) for number, content in enumerate(contents)]
    options: dict[str, Any] = {
        "messages": tuple(messages),
        "model": model or (named or "").removeprefix("models/") or None,
    }
    options["tools"] = _tools(fields.take("tools"))
    extra: dict[str, Any] = {}
    _config(fields.take("generationConfig"), options, extra)
    _choice(fields.take("toolConfig"), options, extra)
    extra.update(fields.rest())
    return Request(**options, extra=extra, protocol=PROTOCOL), stream


def _system(system: Any) -> Message:
    if isinstance(system, str):
        return Message("system", (TextPart(text=system),))
    content = camel_keys(mapping(system, "systemInstruction"))
    parts = _parts_of(content, "systemInstruction")
    reader = PartReader([])
    found = tuple(reader.read(part, f"systemInstruction.parts[{number}]") for number, part in enumerate(parts))
    for number, part in enumerate(found):
        if not isinstance(part, TextPart | UnknownPart):
            raise InvalidRequest(f"systemInstruction.parts[{number}] must be text")
    return Message("system", found)


def _message(content: Any, path: str, reader: PartReader) -> Message:
    fields = camel_keys(mapping(content, path))
    role = fields.get("role") or "user"
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidRequest(f"{path}.role must be user or model, not {role!r}")
    parts = tuple(reader.read(part, f"{path}.parts[{n}]") for n, part in enumerate(_parts_of(fields, path)))
    known = _ROLES[role]
    if known == "user" and parts and all(isinstance(part, ToolResultPart) for part in parts):
        known = "tool"
    return Message(known, parts)


def _parts_of(content: Mapping[str, Any], path: str) -> list[Any]:
    parts = content.get("parts")
    return [parts] if isinstance(parts, dict) else listed(parts, f"{path}.parts")


def _tools(tools: Any) -> tuple[Tool, ...]:
    found: list[Tool] = []
    for number, entry in enumerate(listed(tools, "tools")):
        path = f"tools[{number}]"
        entry = camel_keys(mapping(entry, path))
        for key, value in entry.items():
            if key != "functionDeclarations":
                found.append(Tool(name=key, raw={key: value}))
                continue
            for place, declaration in enumerate(listed(value, f"{path}.functionDeclarations")):
                found.append(_declaration(declaration, f"{path}.functionDeclarations[{place}]"))
    return tuple(found)


def _declaration(declaration: Any, path: str) -> Tool:
    fields = Fields(camel_keys(mapping(declaration, path)), path)
    name = fields.take_str("name")
    if not name:
        raise InvalidRequest(f"{path}.name must be a non-empty string")
    strange = not fields.names() <= _DECLARED
    own = fields.take("parameters")
    schema = fields.take("parametersJsonSchema")
    if schema is None and own is not None:
        schema = to_json_schema(mapping(own, f"{path}.parameters"))
    return Tool(
        name=name,
        description=fields.take_str("description"),
        parameters=None if schema is None else dict(mapping(schema, f"{path}.parametersJsonSchema")),
        raw={"functionDeclarations": [declaration]} if strange else None,
    )


def _config(config: Any, options: dict[str, Any], extra: dict[str, Any]) -> None:
    if config is None:
        return
    fields = Fields(camel_keys(mapping(config, "generationConfig")), "generationConfig")
    options["max_tokens"] = fields.take_int("maxOutputTokens")
    options["seed"] = fields.take_int("seed")
    options["temperature"] = fields.take_number("temperature")
    options["top_p"] = fields.take_number("topP")
    stop = listed(fields.take("stopSequences"), "generationConfig.stopSequences")
    for number, word in enumerate(stop):
        if not isinstance(word, str):
            raise InvalidRequest(f"generationConfig.stopSequences[{number}] must be a string, not {word!r}")
    options["stop"] = tuple(stop)
    _schema(fields, options)
    thinking = fields.take("thinkingConfig")
    rest = fields.rest()
    if thinking is not None:
        known = camel_keys(mapping(thinking, "generationConfig.thinkingConfig"))
        options["reasoning_effort"] = read_effort(known)
        if options["reasoning_effort"] is None and known:
            rest["thinkingConfig"] = known
    if rest:
        extra["generationConfig"] = rest


def _schema(fields: Fields, options: dict[str, Any]) -> None:
    """A schema counts only with ``responseMimeType`` "application/json", and only as an object."""
    if fields.get("responseMimeType") != "application/json":
        return
    for name in ("responseJsonSchema", "_responseJsonSchema", "responseSchema"):
        schema = fields.get(name)
        if schema is None:
            continue
        path = f"generationConfig.{name}"
        options["schema"] = dict(mapping(to_json_schema(schema) if name == "responseSchema" else schema, path))
        fields.take(name)
        fields.take("responseMimeType")
        return


def _choice(config: Any, options: dict[str, Any], extra: dict[str, Any]) -> None:
    if config is None:
        return
    fields = Fields(camel_keys(mapping(config, "toolConfig")), "toolConfig")
    calling = fields.take("functionCallingConfig")
    rest = fields.rest()
    if calling is not None:
        known = camel_keys(mapping(calling, "toolConfig.functionCallingConfig"))
        choice = _mode(known)
        if choice is not None:
            options["tool_choice"] = choice
        elif known:
            rest["functionCallingConfig"] = known
    if rest:
        extra["toolConfig"] = rest


def _mode(config: Mapping[str, Any]) -> str | None:
    """The tool choice that says exactly what a functionCallingConfig says; None if none does."""
    mode = config.get("mode")
    choice = _CHOICES.get(mode.upper()) if isinstance(mode, str) else None
    if choice is None or not config.keys() <= {"mode", "allowedFunctionNames"}:
        return None
    names = config.get("allowedFunctionNames")
    if not names:
        return choice
    one = isinstance(names, list) and len(names) == 1 and isinstance(names[0], str) and names[0]
    return f"tool:{names[0]}" if one and choice == "required" else None
