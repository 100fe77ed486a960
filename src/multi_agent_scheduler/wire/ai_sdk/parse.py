"""What ``useChat`` and ``useObject`` post, as the canonical request.

- ``id``, ``messages``, ``trigger`` and ``messageId`` are the transport's. Beside them a page may send, as the
  transport's ``body``, settings by the names that the SDK has for them: ``model``, ``system``, ``maxOutputTokens``,
  ``temperature``, ``topP``, ``stopSequences``, ``seed``, ``tools`` (an object of ``{description, inputSchema}`` by
  name) and ``toolChoice``. What else a page sends is its own affair and is left out.
- What ``useObject`` submits is the page's own: a text is the prompt, an object has ``prompt`` or ``messages``, a
  ``schema`` (a JSON Schema) if the model is to know it, and the same settings.
- In a message of the assistant each step is one turn; its tool calls that have an outcome are followed by a tool
  message. Calls whose input was still being streamed are left out, and so are those that a provider ran itself, whose
  results could not be sent back in the provider's form.
- Parts for the page alone (sources, data, files that a model made) are left out, as are parts that a reset voided.
  A user's files must be images.
"""

from __future__ import annotations

import binascii
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec

from ...errors import InvalidRequest
from ...request import ImagePart, Message, Part, ReasoningPart, Request, TextPart, Tool, ToolCallPart, ToolResultPart
from ..openai_chat.fields import Fields
from .vocabulary import NAMESPACE, PROTOCOL, RESET

__all__ = ["Chat", "parse_object", "parse_request"]

_json: Final = msgspec.json.Encoder().encode
_CALLED: Final = frozenset(
    {"input-available", "approval-requested", "approval-responded", "output-available", "output-error", "output-denied"}
)


class Chat(msgspec.Struct, frozen=True):
    """What a page asks. ``chat_id`` names its conversation, ``continues`` the assistant's message that goes on."""

    request: Request
    chat_id: str
    continues: str | None = None


def parse_request(body: Any) -> Chat:
    """The request in a body. Raises InvalidRequest naming the place of what is missing or of a wrong type."""
    fields = Fields.of(body, "the body")
    fields.where = ""
    if fields.text("trigger") not in (None, "submit-message", "regenerate-message"):
        raise InvalidRequest(f"trigger must be submit-message or regenerate-message, not {fields.get('trigger')!r}")
    fields.text("messageId")  # of the message to make again; those that are posted end before it
    posted = fields.list("messages") or []
    request = _request(fields, _conversation(posted))
    last = Fields.of(posted[-1], f"messages[{len(posted) - 1}]")
    continues = last.text("id") if last.get("role") == "assistant" else None
    return Chat(request, fields.text("id", required=True), continues)


def parse_object(body: Any) -> Request:
    """What ``useObject`` submits. Raises InvalidRequest naming the place of what is missing or of a wrong type."""
    fields = Fields.of({"prompt": body} if isinstance(body, str) else body, "the body")
    fields.where = ""
    prompt, posted = fields.text("prompt"), fields.list("messages")
    if prompt == "" or (prompt is None) == (posted is None):
        raise InvalidRequest("one of prompt (a text) and messages is needed")
    messages = [Message("user", (TextPart(text=prompt),))] if prompt is not None else _conversation(posted or [])
    return msgspec.structs.replace(_request(fields, messages), schema=fields.object("schema"))


def _conversation(posted: list[Any]) -> list[Message]:
    if not posted:
        raise InvalidRequest("messages must be a list of at least one message")
    messages: list[Message] = []
    for number, message in enumerate(posted):
        messages += _message(Fields.of(message, f"messages[{number}]"))
    if not any(message.role == "user" for message in messages):
        raise InvalidRequest("messages has nothing to answer: at least one message must be the user's")
    return messages


def _request(fields: Fields, messages: list[Message]) -> Request:
    """The messages, and the settings that a page sends beside them."""
    system = fields.text("system")
    if system:
        messages.insert(0, Message("system", (TextPart(text=system),)))
    stops = fields.list("stopSequences") or []
    if not all(isinstance(stop, str) for stop in stops):
        raise InvalidRequest("stopSequences must be a list of strings")
    return Request(
        messages=tuple(messages),
        model=fields.text("model"),
        max_tokens=fields.integer("maxOutputTokens", low=1),
        temperature=fields.number("temperature"),
        top_p=fields.number("topP"),
        stop=tuple(stops),
        seed=fields.integer("seed"),
        tools=_tools(fields),
        tool_choice=_choice(fields),
        protocol=PROTOCOL,
    )


def _tools(fields: Fields) -> tuple[Tool, ...]:
    tools = fields.object("tools") or {}
    found = []
    for name, tool in tools.items():
        inner = Fields.of(tool, f"tools.{name}")
        found.append(Tool(name=name, description=inner.text("description"), parameters=inner.object("inputSchema")))
    return tuple(found)


def _choice(fields: Fields) -> str | None:
    choice = fields.get("toolChoice")
    if choice is None:
        return None
    for word in ("auto", "none", "required"):
        if choice == word:
            return word
    inner = Fields.of(choice, "toolChoice")
    if inner.get("type") != "tool":
        raise InvalidRequest("toolChoice must be auto, none, required or {type: 'tool', toolName: NAME}")
    return "tool:" + inner.text("toolName", required=True)


# --- messages -------------------------------------------------------------------------------------------------------


def _message(message: Fields) -> list[Message]:
    role = message.get("role")
    raw = message.list("parts")
    if raw is None:
        raise InvalidRequest(f"{message.place('parts')} is missing")
    parts = [Fields.of(part, f"{message.place('parts')}[{number}]") for number, part in enumerate(raw)]
    for part in parts:
        part.text("type", required=True)
    match role:
        case "system":
            text = "".join(part.text("text", required=True) for part in parts if part.get("type") == "text")
            return [Message("system", (TextPart(text=text),))] if text else []
        case "user":
            content = tuple(found for part in parts if (found := _content(part)) is not None)
            if not content:
                raise InvalidRequest(f"{message.place('parts')} has no text and no image")
            return [Message("user", content)]
        case "assistant":
            return _turns(_standing(parts))
    raise InvalidRequest(f"{message.place('role')} must be system, user or assistant, not {role!r}")


def _content(part: Fields) -> Part | None:
    match part.get("type"):
        case "text":
            return TextPart(text=part.text("text", required=True))
        case "file":
            return _image(part)
    return None


def _standing(parts: list[Fields]) -> list[Fields]:
    """The parts that no reset voided."""
    standing: list[Fields] = []
    for part in parts:
        if part.get("type") != RESET:
            standing.append(part)
            continue
        void = part.inner("data").integer("void", low=0) or 0
        while void and standing:
            void -= standing.pop().get("type") != "step-start"
    return standing


def _turns(parts: list[Fields]) -> list[Message]:
    messages: list[Message] = []
    said: list[Part] = []
    results: list[Part] = []

    def turn() -> None:
        if said:
            messages.append(Message("assistant", tuple(said)))
        if results:
            messages.append(Message("tool", tuple(results)))
        said.clear()
        results.clear()

    for part in parts:
        kind = part.text("type", required=True)
        if kind == "step-start":
            turn()
        elif kind == "text":
            text = part.text("text", required=True)
            if text:
                said.append(TextPart(text=text))
        elif kind == "reasoning":
            said.append(_reasoning(part))
        elif kind.startswith("tool-") or kind == "dynamic-tool":
            _tool_part(part, kind, said, results)
    turn()
    return messages


def _reasoning(part: Fields) -> Part:
    own = _own(part, "providerMetadata")
    kind = own.text("kind")
    return ReasoningPart(
        text=part.text("text") or "",
        signature=own.text("signature"),
        redacted=own.text("redacted"),
        kind="summary" if kind == "summary" else None,
        id=own.text("id"),
        protocol=own.text("protocol") or "",
    )


def _own(part: Fields, field: str) -> Fields:
    """What is ours in a part's provider metadata."""
    metadata = Fields(part.object(field) or {}, part.place(field))
    return Fields(metadata.object(NAMESPACE) or {}, metadata.place(NAMESPACE))


def _tool_part(part: Fields, kind: str, said: list[Part], results: list[Part]) -> None:
    state = part.text("state", required=True)
    if state not in _CALLED or part.flag("providerExecuted"):
        return
    name = part.text("toolName", required=True) if kind == "dynamic-tool" else kind.removeprefix("tool-")
    call_id = part.text("toolCallId", required=True)
    given = part.get("input")
    if given is None:  # version 6 has the text of what is no JSON there
        given = part.raw.get("rawInput") or {}
    own = _own(part, "callProviderMetadata")
    said.append(
        ToolCallPart(
            id=call_id,
            name=name,
            arguments=given if isinstance(given, str) else _json(given).decode(),
            kind="custom" if own.get("kind") == "custom" else "function",
            signature=own.text("signature"),
            protocol=own.text("protocol") or "",
        )
    )
    match state:
        case "output-available":
            output = part.get("output")
            text = output if isinstance(output, str) else _json(output).decode()
        case "output-error":
            text = part.text("errorText") or "the tool failed"
        case "output-denied":
            approval = Fields(part.object("approval") or {}, part.place("approval"))
            text = approval.text("reason") or "the user did not allow this call"
        case _:
            return
    failed = state != "output-available"
    results.append(ToolResultPart(id=call_id, name=name, content=(TextPart(text=text),), is_error=failed))


def _image(part: Fields) -> ImagePart:
    media_type = part.text("mediaType", required=True)
    url = part.text("url", required=True)
    if media_type.partition("/")[0].lower() != "image":
        raise InvalidRequest(f"{part.place('mediaType')}: only images can be sent, not {media_type!r}")
    scheme, _, rest = url.partition(":")
    if scheme.lower() in ("http", "https"):
        return ImagePart(url=url)
    head, comma, data = rest.partition(",")
    if scheme.lower() != "data" or not comma:
        raise InvalidRequest(f"{part.place('url')} must be an http(s) address or a data URL")
    declared, *parameters = head.split(";")
    try:
        coded = "base64" in parameters
        image = binascii.a2b_base64(data, strict_mode=True) if coded else unquote_to_bytes(data)
    except ValueError:
        raise InvalidRequest(f"{part.place('url')} must hold base64") from None
    if "/" not in media_type or media_type.endswith("/*"):  # version 7 allows the kind alone
        media_type = declared or media_type
    return ImagePart(data=image, media_type=media_type)
