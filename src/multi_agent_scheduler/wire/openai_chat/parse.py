"""A chat completions request as the canonical one: for serving clients of this protocol.

- Roles ``system`` and ``developer`` are one; a lone text may have been a string or a list. ``null`` is as good as
  nothing. ``annotations``, which a client sends back with our own message, are dropped.
- What is unknown at the top goes into ``extra``; an unknown item of a content becomes an ``UnknownPart``; unknown
  fields of a message become one ``UnknownPart`` whose ``raw`` has no ``type``.
- ``reasoning_content``, ``reasoning`` and ``reasoning_details`` of earlier turns become reasoning parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...errors import InvalidRequest
from ...request import Message, Request, Tool
from .build import DEFAULT_SCHEMA_NAME
from .fields import Fields
from .finish import PROTOCOL
from .turn import parse_message

__all__ = ["parse_request", "wants_usage"]

_KNOWN: Final = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
    }
)


def parse_request(body: Mapping[str, Any]) -> tuple[Request, bool]:
    """The request, and whether the client wants a stream.

    Raises :class:`~multi_agent_scheduler.errors.InvalidRequest` naming the place in the JSON for what is missing or of
    a wrong type.
    """
    fields = Fields(body, "")
    extra = {key: value for key, value in body.items() if key not in _KNOWN and value is not None}
    tools = _tools(fields)
    schema, name, strict = _schema(fields, extra)
    options = fields.object("stream_options") or {}
    unusual = {key: value for key, value in options.items() if key not in ("include_usage", "include_obfuscation")}
    if unusual:
        extra["stream_options"] = unusual
    request = Request(
        messages=_messages(fields),
        model=fields.text("model"),
        max_tokens=_max_tokens(fields, extra),
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        stop=_stop(fields),
        seed=fields.integer("seed"),
        tools=tools,
        tool_choice=_tool_choice(fields, extra),
        parallel_tool_calls=fields.flag("parallel_tool_calls"),
        schema=schema,
        schema_name=name,
        schema_strict=strict,
        reasoning_effort=fields.text("reasoning_effort"),
        extra=extra,
        protocol=PROTOCOL,
    )
    return request, bool(fields.flag("stream"))


def wants_usage(body: Mapping[str, Any]) -> bool:
    """Whether the client asked a stream for its usage (``stream_options.include_usage``)."""
    options = body.get("stream_options")
    return isinstance(options, Mapping) and options.get("include_usage") is True


def _messages(fields: Fields) -> tuple[Message, ...]:
    messages = fields.list("messages")
    if not messages:
        raise InvalidRequest("messages must be a list of at least one message")
    return tuple(parse_message(Fields.of(message, f"messages[{i}]")) for i, message in enumerate(messages))


def _max_tokens(fields: Fields, extra: dict[str, Any]) -> int | None:
    newer, older = fields.integer("max_completion_tokens", low=1), fields.integer("max_tokens", low=1)
    if newer is not None and older is not None and newer != older:
        extra["max_tokens"] = older
    return newer if newer is not None else older


def _stop(fields: Fields) -> tuple[str, ...]:
    stop = fields.get("stop")
    if stop is None:
        return ()
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(item, str) for item in stops):
        raise InvalidRequest("stop must be a string or a list of strings")
    return tuple(stops)


def _tools(fields: Fields) -> tuple[Tool, ...]:
    return tuple(_tool(Fields.of(tool, f"tools[{i}]")) for i, tool in enumerate(fields.list("tools") or ()))


def _tool(tool: Fields) -> Tool:
    kind = tool.text("type", required=True)
    if kind != "function":
        inner = tool.object(kind) if isinstance(tool.get(kind), Mapping) else None
        name = (inner or {}).get("name") or tool.get("name") or kind
        return Tool(name=name if isinstance(name, str) else kind, raw=dict(tool.raw))
    function = tool.inner("function")
    strange = tool.raw.keys() - {"type", "function"} or function.raw.keys() - {
        "name",
        "description",
        "parameters",
        "strict",
    }
    return Tool(
        name=function.text("name", required=True),
        description=function.text("description"),
        parameters=function.object("parameters"),
        strict=function.flag("strict"),
        raw=dict(tool.raw) if strange else None,
    )


def _tool_choice(fields: Fields, extra: dict[str, Any]) -> str | None:
    choice = fields.get("tool_choice")
    if choice is None:
        return None
    if isinstance(choice, str):
        if choice in ("auto", "none", "required"):
            return choice
        if choice == "any":  # Mistral's word
            return "required"
        raise InvalidRequest(f"tool_choice must be auto, none, required or a tool, not {choice!r}")
    inner = fields.inner("tool_choice")
    kind = inner.text("type", required=True)
    if kind in ("function", "custom"):
        return "tool:" + inner.inner(kind).text("name", required=True)
    extra["tool_choice"] = choice  # allowed_tools and what is to come
    return None


def _schema(fields: Fields, extra: dict[str, Any]) -> tuple[dict[str, Any] | None, str | None, bool | None]:
    if fields.get("response_format") is None:
        return None, None, None
    form = fields.inner("response_format")
    if form.text("type", required=True) != "json_schema":
        extra["response_format"] = form.raw
        return None, None, None
    inner = form.inner("json_schema")
    schema = inner.object("schema")
    if schema is None:
        raise InvalidRequest("response_format.json_schema.schema is missing")
    name = inner.text("name", required=True)
    strict = inner.flag("strict")
    if inner.raw.keys() - {"schema", "name", "strict"}:
        extra["response_format"] = form.raw  # a description, say: sent again as it came
    return schema, None if name == DEFAULT_SCHEMA_NAME else name, strict
