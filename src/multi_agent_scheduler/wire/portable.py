"""A request for an agent of another protocol: what only the protocol that it was made for knows is taken out.

Clients of one protocol ask agents of another, and failover goes from provider to provider. A request that a
``parse_request`` made says which protocol's its own fields are, and so may each of its parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ..errors import InvalidRequest
from ..request import (
    Message,
    Part,
    ReasoningPart,
    Request,
    Tool,
    ToolCallPart,
    ToolResultPart,
    UnknownPart,
)

__all__ = ["PROTOCOLS", "SPOKEN", "portable"]

_replace = msgspec.structs.replace
PROTOCOLS: Final = frozenset({"anthropic", "gemini", "openai_chat", "openai_responses"})
"""The protocols of providers."""
SPOKEN: Final = PROTOCOLS | {"ai_sdk"}
"""The protocols in which clients ask."""

_FREE_TEXT: Final = frozenset({"openai_chat", "openai_responses"})
"""The protocols that know custom tools, which take free text."""

_REFERENCES: Final = ("previous_response_id", "conversation", "prompt")
"""Fields of the Responses API that stand for messages which OpenAI keeps."""


def portable(request: Request, protocol: str | None) -> Request:
    """The request as an agent of this protocol can be asked it; the same object if it is that already.

    Of another protocol's own things these are dropped: ``extra`` of request, parts and tools; reasoning, whose seals no
    other provider can read; signatures; tools that its provider runs, what they were asked in earlier turns and what
    they answered. Custom tools become functions with one string, ``input``, where the protocol has none of its own.

    What a user or the system says in a form that only the other protocol has (a document, say) is not dropped: it stays
    for ``build_request`` to refuse by name. Raises :class:`~multi_agent_scheduler.errors.InvalidRequest` for a request
    whose messages are kept at the other provider.
    """
    if protocol is None:
        return request
    foreign = request.protocol not in (None, protocol)
    if not foreign and not _has_foreign(request, ("", protocol)):
        return request
    messages = tuple(_messages(request, protocol))
    if not foreign:
        return _replace(request, messages=messages)
    kept = next((name for name in _REFERENCES if request.extra.get(name)), None)
    if kept is not None and request.protocol == "openai_responses":
        raise InvalidRequest(f"{kept}: what it stands for is kept at OpenAI, and {protocol} cannot be sent it")
    tools = tuple(made for tool in request.tools if (made := _tool(tool, protocol)) is not None)
    choice = request.tool_choice
    if choice is not None and choice.startswith("tool:") and all(tool.name != choice[5:] for tool in tools):
        choice = None
    return _replace(
        request, protocol=protocol, messages=messages, extra={}, tools=tools, tool_choice=choice if tools else None
    )


def _has_foreign(request: Request, own: tuple[str, str]) -> bool:
    """Whether a part says that it is another protocol's than these."""
    for message in request.messages:
        for part in message.parts:
            if part.protocol not in own:
                return True
            if type(part) is ToolResultPart and any(inner.protocol not in own for inner in part.content):
                return True
    return False


def _is_foreign(part: Part, request: Request, protocol: str) -> bool:
    return (part.protocol or request.protocol or protocol) != protocol


def _messages(request: Request, protocol: str) -> Iterator[Message]:
    for message in request.messages:
        parts: list[Part] = []
        for part in message.parts:
            made = _part(part, message.role, protocol) if _is_foreign(part, request, protocol) else part
            if made is not None:
                parts.append(made)
        if parts or not message.parts:
            yield _replace(message, parts=tuple(parts))


def _part(part: Part, role: str, protocol: str) -> Part | None:
    """A foreign part as one of this protocol; None for what is dropped."""
    match part:
        case ReasoningPart():
            return None
        case UnknownPart():
            said = role in ("user", "system") and isinstance(part.raw, dict) and "type" in part.raw
            return part if said else None
        case ToolCallPart(kind="server"):
            return None
        case ToolCallPart(kind="custom") if protocol not in _FREE_TEXT:
            arguments = msgspec.json.encode({"input": part.arguments}).decode()
            return _replace(part, kind="function", arguments=arguments, signature=None, extra=None, protocol="")
        case ToolCallPart():
            return _replace(part, signature=None, extra=None, protocol="")
        case ToolResultPart():
            content = [it if type(it) is UnknownPart else _replace(it, extra=None, protocol="") for it in part.content]
            return _replace(part, content=tuple(content), extra=None, protocol="")
        case _:
            return _replace(part, extra=None, protocol="")


def _tool(tool: Tool, protocol: str) -> Tool | None:
    """A foreign tool as one of this protocol; None for one that its provider runs."""
    raw = tool.raw
    if raw is None:
        return _replace(tool, extra=None) if tool.extra else tool
    if raw.get("type") == "custom" and (custom := raw.get("custom", raw)) is not None:
        return _custom(tool.name, custom, protocol)
    if raw.get("type") == "function" or "functionDeclarations" in raw:
        return _replace(tool, raw=None, extra=None)
    return None


def _custom(name: str, custom: dict[str, Any], protocol: str) -> Tool:
    """A tool that takes free text; the two protocols that know it write it differently."""
    described = {key: custom[key] for key in ("description",) if isinstance(custom.get(key), str)}
    if protocol == "openai_responses":
        return Tool(name, raw={"type": "custom", "name": name, **described})
    if protocol == "openai_chat":
        return Tool(name, raw={"type": "custom", "custom": {"name": name, **described}})
    schema = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    return Tool(name, **described, parameters=schema)
