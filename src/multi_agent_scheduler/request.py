"""The canonical form of what an agent is asked: messages of parts, tools and options.

Every protocol's ``build_request`` writes it and ``parse_request`` reads it. What only one provider knows goes into
``extra`` and reaches that provider's body as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from .errors import InvalidOption, InvalidRequest

__all__ = [
    "ImagePart",
    "Message",
    "Part",
    "Prompt",
    "ReasoningPart",
    "RefusalPart",
    "Request",
    "TextPart",
    "Tool",
    "ToolCallPart",
    "ToolResultPart",
    "UnknownPart",
    "build",
    "with_defaults",
]

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
_ROLES: Final = get_args(Role)


class _PartBase(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    extra: dict[str, Any] | None = None
    """Fields of this part that only one provider knows (Anthropic's cache_control, say)."""
    protocol: str = ""
    """Whose its seals and ``extra`` are, by the agent's ``protocol`` (``"anthropic"``, say); "": the request's."""


class TextPart(_PartBase, frozen=True, tag="text"):
    """Text."""

    text: str


class ImagePart(_PartBase, frozen=True, tag="image"):
    """An image, by ``url`` (the provider fetches it; we never do) or by ``data`` with its ``media_type``."""

    url: str | None = None
    data: bytes | None = None
    media_type: str | None = None


class ToolCallPart(_PartBase, frozen=True, tag="tool_call"):
    """A call that the assistant made in an earlier turn; ``arguments`` is JSON text (``kind`` "custom": free text)."""

    id: str
    name: str
    arguments: str = "{}"
    kind: Literal["function", "custom", "server"] = "function"
    signature: str | None = None


class ToolResultPart(_PartBase, frozen=True, tag="tool_result"):
    """The answer to the tool call ``id``."""

    id: str
    content: tuple[TextPart | ImagePart | UnknownPart, ...] = ()
    name: str = ""
    is_error: bool = False


class ReasoningPart(_PartBase, frozen=True, tag="reasoning"):
    """Reasoning of an earlier turn, sent back with its seal; the fields are those of the record."""

    text: str = ""
    signature: str | None = None
    redacted: str | None = None
    kind: Literal["summary"] | None = None
    id: str | None = None


class RefusalPart(_PartBase, frozen=True, tag="refusal"):
    """A refusal of an earlier turn."""

    text: str


class UnknownPart(_PartBase, frozen=True, tag="unknown"):
    """A part in a provider's own form, passed on to that protocol as it is."""

    raw: Any


Part: TypeAlias = TextPart | ImagePart | ToolCallPart | ToolResultPart | ReasoningPart | RefusalPart | UnknownPart


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn. ``name`` is the participant's, where a protocol has one."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None


class Tool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool that the model may call; ``parameters`` is a JSON Schema. ``raw`` is a provider's own tool, as it is."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    raw: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None
    """Fields of this tool that only one provider knows (Anthropic's cache_control, say)."""


_TOOL_FIELDS: Final = frozenset(Tool.__struct_fields__)

ToolChoice: TypeAlias = str
"""``auto``, ``none``, ``required``, or ``tool:NAME`` for one tool."""


class Request(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What an agent is asked. None means: not said, the agent's or the provider's default.

    ``schema`` is a JSON Schema that the answer must fit. ``extra`` is merged into the provider's request body as it is.
    ``protocol`` says for which protocol (an agent's ``protocol``: ``"anthropic"``, say) its ``extra`` and its parts'
    own forms are, where those do not say it; they are taken out when it goes to an agent of another one.
    """

    messages: tuple[Message, ...]
    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    schema: dict[str, Any] | None = None
    schema_name: str | None = None
    schema_strict: bool | None = None
    reasoning_effort: str | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    protocol: str | None = None

    @property
    def prompt(self) -> str:
        """The text of the last user message: what a function agent is called with."""
        for message in reversed(self.messages):
            if message.role == "user":
                return "".join(part.text for part in message.parts if isinstance(part, TextPart))
        return ""


Prompt: TypeAlias = str | Sequence[Message | Mapping[str, Any]]
"""A plain string, or messages: :class:`Message` objects or dicts with ``role`` and ``content`` (a string or parts)."""

OPTIONS: Final = frozenset(
    {
        "extra",
        "max_tokens",
        "model",
        "parallel_tool_calls",
        "protocol",
        "reasoning_effort",
        "schema",
        "schema_name",
        "schema_strict",
        "seed",
        "stop",
        "system",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
    }
)


def build(prompt: Prompt, options: Mapping[str, Any]) -> Request:
    """The request for a prompt and the keywords of a call.

    Raises :class:`~multi_agent_scheduler.errors.InvalidRequest` for a prompt that cannot be sent and
    :class:`~multi_agent_scheduler.errors.InvalidOption` for a keyword that is unknown or out of range.
    """
    unknown = options.keys() - OPTIONS
    if unknown:
        name = min(unknown)
        raise InvalidOption(
            f"unknown option {name!r}; the options are {', '.join(sorted(OPTIONS))}; "
            f"what only one provider knows goes into extra={{{name!r}: ...}}"
        )
    fields = {name: value for name, value in options.items() if value is not None and name != "system"}
    system = options.get("system")
    messages = _messages(prompt)
    if system is not None:
        if not isinstance(system, str):
            raise InvalidOption(f"system must be a string, not {type(system).__name__}")
        messages = (Message("system", (TextPart(system),)), *messages)
    _check_text(messages)
    for name, value in fields.items():
        if name in _NUMBERS:
            _check_number(name, value)
        elif name in _KINDS:
            _check_kind(name, value)
    if "stop" in fields:
        fields["stop"] = _stop(fields["stop"])
    if "tools" in fields:
        fields["tools"] = _tools(fields["tools"])
    return Request(messages=messages, **fields)


def with_defaults(request: Request, defaults: Mapping[str, Any]) -> Request:
    """The request with ``defaults``, keywords of a call, where it says nothing. Raises as :func:`build`."""
    if not defaults:
        return request
    base = build("-", defaults)
    changes: dict[str, Any] = {}
    for name in Request.__struct_fields__:
        value = getattr(base, name)
        if name not in ("messages", "protocol") and value not in _NOTHING and getattr(request, name) in _NOTHING:
            changes[name] = value
    if len(base.messages) > 1 and all(message.role != "system" for message in request.messages):
        changes["messages"] = (base.messages[0], *request.messages)
    return msgspec.structs.replace(request, **changes) if changes else request


_NOTHING: Final[tuple[Any, ...]] = (None, (), {})


def _check_text(messages: Sequence[Message]) -> None:
    """Refuse halves of surrogate pairs (of a broken file name, say): no provider can be sent those."""
    for message in messages:
        for part in message.parts:
            text = part.text if type(part) is TextPart else getattr(part, "text", None)
            if not isinstance(text, str) or text.isascii():
                continue
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise InvalidRequest(
                    f"the {message.role} message has half a surrogate pair ({text[error.start]!a}) at position "
                    f"{error.start}: it is not text that can be sent"
                ) from None


_NUMBERS: Final[Mapping[str, tuple[type, int | None]]] = {
    "max_tokens": (int, 1),
    "seed": (int, None),
    "temperature": (float, 0),
    "top_p": (float, 0),
}
"""The options that are numbers, each with its kind and the least that it may be."""


def _check_number(name: str, value: Any) -> None:
    kind, low = _NUMBERS[name]
    number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if not number or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidOption(f"{name} must be {'a whole number' if kind is int else 'a number'}, not {value!r}")
    if low is not None and value < low:
        raise InvalidOption(f"{name} must be at least {low}, not {value!r}")


_KINDS: Final[Mapping[str, tuple[type, str]]] = {
    "model": (str, "a string"),
    "tool_choice": (str, "'auto', 'none', 'required' or 'tool:NAME'"),
    "parallel_tool_calls": (bool, "True or False"),
    "schema": (dict, "a JSON Schema as a dict"),
    "schema_name": (str, "a string"),
    "schema_strict": (bool, "True or False"),
    "reasoning_effort": (str, "a string, such as 'low'"),
    "extra": (dict, "a dict"),
    "protocol": (str, "an agent's protocol, such as 'anthropic'"),
}


def _check_kind(name: str, value: Any) -> None:
    kind, said = _KINDS[name]
    if not isinstance(value, kind):
        raise InvalidOption(f"{name} must be {said}, not {value!r}")


def _stop(value: Any) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else value
    if not isinstance(stops, list | tuple) or not all(isinstance(stop, str) and stop for stop in stops):
        raise InvalidOption(f"stop must be a non-empty string or a list of them, not {value!r}")
    return tuple(stops)


def _tools(value: Any) -> tuple[Tool, ...]:
    if not isinstance(value, list | tuple):
        raise InvalidOption(f"tools must be a list, not {type(value).__name__}")
    return tuple(_tool(tool) for tool in value)


def _tool(tool: Any) -> Tool:
    if isinstance(tool, Tool):
        return tool
    if isinstance(tool, Mapping):
        if tool.keys() <= _TOOL_FIELDS:
            try:
                return msgspec.convert(tool, Tool)
            except msgspec.ValidationError as error:
                raise InvalidOption(f"tools: {error}") from None
        inner = tool.get("function", tool)  # the OpenAI chat form nests it
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if isinstance(name, str) and name:
            return Tool(
                name=name,
                description=inner.get("description"),
                parameters=inner.get("parameters", inner.get("input_schema")),
                strict=inner.get("strict"),
            )
    raise InvalidOption(f"tools must be Tool objects or dicts with a name, a description and parameters, not {tool!r}")


def _messages(prompt: Prompt) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        if not prompt.strip():
            raise InvalidRequest("the prompt is empty: give the agent something to answer")
        return (Message("user", (TextPart(prompt),)),)
    if isinstance(prompt, bytes | Mapping) or not isinstance(prompt, tuple | list | Sequence):
        raise InvalidRequest(f"a prompt is a string or a list of messages, not {type(prompt).__name__}")
    if not prompt:
        raise InvalidRequest("the prompt is empty: give at least one message")
    messages = tuple(_message(message, index) for index, message in enumerate(prompt))
    for index, message in enumerate(messages):
        if not message.parts or (message.role == "user" and all(map(_is_blank, message.parts))):
            raise InvalidRequest(f"messages[{index}] is empty: give it a text, or leave it out")
    return messages


def _is_blank(part: Part) -> bool:
    return type(part) is TextPart and not part.text.strip()


_MESSAGE_FIELDS: Final = frozenset({"role", "content", "parts", "name"})


def _message(message: Any, index: int) -> Message:
    if isinstance(message, Message):
        return message
    if not isinstance(message, Mapping) or "role" not in message:
        raise InvalidRequest(f"messages[{index}] must be a Message or a dict with role and content, not {message!r}")
    if message["role"] not in _ROLES:
        raise InvalidRequest(
            f"messages[{index}].role must be one of {', '.join(map(repr, _ROLES))}, not {message['role']!r}"
        )
    unknown = sorted(str(key) for key, value in message.items() if key not in _MESSAGE_FIELDS and value is not None)
    if unknown:
        raise InvalidRequest(
            f"messages[{index}]: unknown field {unknown[0]!r}; the fields are role, content and name, and calls of "
            "tools and their results are parts of the content: ToolCallPart, ToolResultPart"
        )
    content = message.get("content", message.get("parts"))
    raw = {"role": message["role"], "parts": _parts(content, index), "name": message.get("name")}
    try:
        return msgspec.convert(raw, Message)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"messages[{index}]: {error}") from None


def _parts(content: Any, index: int) -> list[Any]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise InvalidRequest(f"messages[{index}].content must be a string or a list of parts, not {content!r}")
    parts: list[Any] = []
    for part in content:
        if isinstance(part, msgspec.Struct):
            parts.append(msgspec.to_builtins(part, builtin_types=(bytes,)))
        elif isinstance(part, str):
            parts.append({"type": "text", "text": part})
        elif isinstance(part, Mapping) and part.get("type") == "image_url":  # the OpenAI chat form
            link = part.get("image_url")
            parts.append({"type": "image", "url": link.get("url") if isinstance(link, Mapping) else link})
        else:
            parts.append(part)
    return parts
