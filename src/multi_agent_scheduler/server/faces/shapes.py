"""The JSON Schemas of what the protocols of others are asked with: what the wire packages check, said to clients.

They describe; the wire packages' ``parse_request`` and the agents' own checks decide. A test that makes requests from
them, and others that do not fit them, holds the two together. A field that is null is a field that is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

__all__ = ["CHAT", "MESSAGES", "OBJECT", "PAGE", "RESPONSES", "SERVERS_OWN", "Shape"]

Shape: TypeAlias = dict[str, Any]

_ANY: Final[Shape] = {}
_NULL: Final[Shape] = {"type": "null"}
_TEXT: Final[Shape] = {"type": "string"}
_OBJECT: Final[Shape] = {"type": "object"}
_FLAG: Final[Shape] = {"type": ["boolean", "null"]}
_COUNT: Final[Shape] = {"type": ["integer", "null"], "minimum": 1, "maximum": 2**53}
_SEED: Final[Shape] = {"type": ["integer", "null"], "minimum": -(2**63), "maximum": 2**63 - 1}
_NUMBER: Final[Shape] = {"type": ["number", "null"], "minimum": 0, "maximum": 1e9}
_ONE: Final[Shape] = {"enum": [1, None], "description": "a request gets one answer"}
_BLANK: Final = r"^[\s\x1c-\x1f]*$"  # as str.strip sees it
_SAID: Final[Shape] = {"type": "string", "pattern": r"[^\s\x1c-\x1f]"}
_BASE64: Final = "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_MODEL: Final[Shape] = {"type": "string", "minLength": 1, "description": "an agent, or agent/model"}


def _maybe(shape: Shape) -> Shape:
    if isinstance(shape.get("type"), str):
        return {**shape, "type": [shape["type"], "null"]}
    return {"anyOf": [shape, _NULL]}


def _any_of(*shapes: Shape) -> Shape:
    return {"anyOf": list(shapes)}


def _object(required: Iterable[str] = (), **properties: Shape) -> Shape:
    return {"type": "object", "properties": properties, "required": list(required)}


def _list(items: Shape, least: int = 0) -> Shape:
    return {"type": "array", "items": items, **({"minItems": least} if least else {})}


def _tagged(tag: str, *required: str, **properties: Shape) -> Shape:
    return _object(("type", *required), type={"const": tag}, **properties)


def _other(*tags: str) -> Shape:
    """An object of another type, which is passed on as it is."""
    return _object(("type",), type={"type": "string", "not": {"enum": list(tags)}})


def _has(name: str, shape: Shape) -> Shape:
    return _object((name,), **{name: shape})


def _open(names: str) -> dict[str, Shape]:
    """Fields that are handed to agents of the same protocol as they are."""
    return dict.fromkeys(names.split(), _ANY)


def _speaking(parts: Shape, blank: str) -> Shape:
    """What somebody says who is to be answered: something that is not empty."""
    silent = _tagged(blank, text={"pattern": _BLANK})
    return _any_of(_SAID, {**_list(parts), "contains": {"not": silent}, "minContains": 1})


_TEXT_OR_NONE: Final = _maybe(_TEXT)
_OBJECT_OR_NONE: Final = _maybe(_OBJECT)
_STOPS: Final = _list({"type": "string", "minLength": 1})
_EFFORT: Final = _object(effort=_TEXT_OR_NONE)
_TOOL: Final = {"description": _TEXT_OR_NONE, "strict": _FLAG}

# --- chat completions -----------------------------------------------------------------------------------------------

_LINK: Final = {
    "type": "string", **_any_of({"pattern": "^(?!data:)"}, {"pattern": f"^data:[^,;]+;base64,{_BASE64}$"})
}  # fmt: skip
_CHAT_PART: Final = _any_of(
    _tagged("text", "text", text=_TEXT),
    _tagged("image_url", "image_url", image_url=_any_of(_LINK, _object(("url",), url=_LINK, detail=_TEXT_OR_NONE))),
    _other("text", "image_url", "refusal"),
)
_CHAT_SPOKEN: Final = _any_of(_CHAT_PART, _tagged("refusal", "refusal", refusal=_TEXT))
_CHAT_CALL: Final = _any_of(
    _object(
        ("id", "function"), id=_TEXT, type={"enum": ["function", None]},
        function=_object(("name",), name=_TEXT, arguments=_TEXT_OR_NONE),
    ),
    _object(
        ("id", "type", "custom"), id=_TEXT, type={"const": "custom"},
        custom=_object(("name",), name=_TEXT, input=_TEXT_OR_NONE),
    ),
)  # fmt: skip
_DETAIL: Final = _object(
    ("type",), type=_TEXT, text=_TEXT_OR_NONE, summary=_TEXT_OR_NONE, data=_TEXT_OR_NONE, signature=_TEXT_OR_NONE,
    id=_TEXT_OR_NONE,
)  # fmt: skip
_ASSISTANT: Final = {
    **_object(
        ("role",), role={"const": "assistant"}, name=_TEXT_OR_NONE, refusal=_TEXT_OR_NONE,
        content=_any_of(_NULL, _TEXT, _list(_CHAT_SPOKEN)), tool_calls=_maybe(_list(_CHAT_CALL)),
        function_call=_maybe(_object(("name",), name=_TEXT, arguments=_TEXT_OR_NONE)),
        reasoning=_TEXT_OR_NONE, reasoning_content=_TEXT_OR_NONE, reasoning_details=_maybe(_list(_DETAIL)),
    ),
    "additionalProperties": _NULL,
    **_any_of(
        _has("content", _any_of(_TEXT, {"type": "array", "minItems": 1})), _has("refusal", _TEXT),
        _has("tool_calls", {"type": "array", "minItems": 1}), _has("function_call", _OBJECT),
    ),
}  # fmt: skip
_CHAT_MESSAGE: Final = _any_of(
    _object(
        ("role", "content"), role={"enum": ["system", "developer"]}, content=_any_of(_TEXT, _list(_CHAT_SPOKEN, 1)),
        name=_TEXT_OR_NONE,
    ),
    _object(("role", "content"), role={"const": "user"}, content=_speaking(_CHAT_SPOKEN, "text"), name=_TEXT_OR_NONE),
    _ASSISTANT,
    _object(
        ("role", "tool_call_id"), role={"const": "tool"}, tool_call_id=_TEXT, name=_TEXT_OR_NONE,
        content=_any_of(_NULL, _TEXT, _list(_CHAT_PART)),
    ),
    _object(
        ("role", "name"), role={"const": "function"}, name=_TEXT, content=_any_of(_NULL, _TEXT, _list(_CHAT_PART))
    ),
)  # fmt: skip

# https://platform.openai.com/docs/api-reference/chat/create; the last line is what compatible servers take beside it.
CHAT: Final[Shape] = {
    "title": "ChatRequest",
    **_object(
        ("model", "messages"),
        model=_MODEL, messages=_list(_CHAT_MESSAGE, 1), n=_ONE, stream=_FLAG, seed=_SEED, temperature=_NUMBER,
        max_tokens=_COUNT, max_completion_tokens=_COUNT, top_p=_NUMBER, parallel_tool_calls=_FLAG,
        reasoning_effort=_TEXT_OR_NONE, stream_options=_OBJECT_OR_NONE,
        stop=_any_of(_NULL, {"type": "string", "minLength": 1}, _STOPS),
        tools=_maybe(_list(_any_of(
            _tagged("function", "function", function=_object(
                ("name",), name=_TEXT, parameters=_OBJECT_OR_NONE, **_TOOL
            )),
            _other("function"),
        ))),
        tool_choice=_any_of(
            {"enum": ["auto", "none", "required", "any", None]},
            _tagged("function", "function", function=_has("name", _TEXT)),
            _tagged("custom", "custom", custom=_has("name", _TEXT)),
            _other("function", "custom"),
        ),
        response_format=_any_of(
            _NULL,
            _tagged("json_schema", "json_schema", json_schema=_object(
                ("name", "schema"), name=_TEXT, schema=_OBJECT, strict=_FLAG
            )),
            _other("json_schema"),
        ),
        **_open(
            "audio frequency_penalty function_call functions logit_bias logprobs metadata modalities moderation "
            "prediction presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention "
            "safety_identifier service_tier store top_logprobs user verbosity web_search_options "
            "chat_template_kwargs min_p reasoning repetition_penalty thinking top_k"
        ),
    ),
    "additionalProperties": False,
}  # fmt: skip

# --- responses ------------------------------------------------------------------------------------------------------

_ELSEWHERE: Final[Shape] = {"type": "null", "description": "send the whole conversation as input"}
_INLINE: Final = r"^data:[\w.+-]+/[\w.+-]+;base64,"
_RESPONSES_PART: Final = _any_of(
    *(_tagged(tag, "text", text=_TEXT) for tag in ("input_text", "output_text", "text")),
    _tagged("refusal", "refusal", refusal=_TEXT),
    _tagged("input_image", image_url=_maybe({
        "type": "string", **_any_of({"not": {"pattern": _INLINE}}, {"pattern": f"{_INLINE}{_BASE64}$"})
    })),
    _other("input_text", "output_text", "text", "refusal", "input_image"),
)  # fmt: skip
_TOLD: Final = _maybe(_list(_has("text", _TEXT)))
_MESSAGE_TYPE: Final[Shape] = {"enum": ["message", None]}
_CALLED: Final = {"call_id": _TEXT, "name": _TEXT, "signature": _TEXT_OR_NONE}
_RESULT: Final = {"call_id": _TEXT, "output": _any_of(_TEXT, _list(_RESPONSES_PART))}
_ITEM: Final = _any_of(
    _object(
        ("role", "content"), type=_MESSAGE_TYPE, role={"const": "user"},
        content=_any_of(_SAID, {
            **_list(_RESPONSES_PART),
            "contains": {"not": _object(("type",), type={"enum": ["input_text", "output_text", "text"]},
                                        text={"pattern": _BLANK})},
        }),
    ),
    _object(
        ("role", "content"), type=_MESSAGE_TYPE, role={"enum": ["system", "developer"]},
        content=_any_of(_TEXT, _list(_RESPONSES_PART, 1)),
    ),
    _object(
        ("role", "content"), type=_MESSAGE_TYPE, role={"const": "assistant"},
        content=_any_of(_TEXT, _list(_RESPONSES_PART)),
    ),
    _tagged("function_call", "call_id", "name", "arguments", **_CALLED, arguments=_TEXT),
    _tagged("custom_tool_call", "call_id", "name", "input", **_CALLED, input=_TEXT),
    _tagged("function_call_output", "call_id", "output", **_RESULT),
    _tagged("custom_tool_call_output", "call_id", "output", **_RESULT),
    _tagged(
        "reasoning", id=_TEXT_OR_NONE, encrypted_content=_TEXT_OR_NONE, redacted=_TEXT_OR_NONE, summary=_TOLD,
        content=_TOLD,
    ),
    _other("message", "function_call", "custom_tool_call", "function_call_output", "custom_tool_call_output",
           "reasoning"),
)  # fmt: skip

# https://platform.openai.com/docs/api-reference/responses/create, without what is for the account that pays.
RESPONSES: Final[Shape] = {
    "title": "ResponsesRequest",
    **_object(
        ("model", "input"),
        model=_MODEL, input=_any_of(_SAID, _list(_ITEM, 1)), instructions=_TEXT_OR_NONE, stream=_FLAG,
        background=_FLAG, max_output_tokens=_COUNT, temperature=_NUMBER, top_p=_NUMBER, parallel_tool_calls=_FLAG,
        previous_response_id=_ELSEWHERE, conversation=_ELSEWHERE, prompt=_ELSEWHERE,
        tools=_maybe(_list(_any_of(
            _tagged("function", "name", name=_TEXT, parameters=_OBJECT_OR_NONE, **_TOOL), _other("function")
        ))),
        tool_choice=_any_of({"enum": ["auto", "none", "required", None]}, _OBJECT),
        text=_maybe(_object(format=_any_of(
            _NULL,
            _tagged("json_schema", "schema", schema=_OBJECT, name=_TEXT_OR_NONE, strict=_FLAG),
            {"type": "object", "not": _has("type", {"const": "json_schema"})},
        ))),
        reasoning=_maybe(_EFFORT),
        **_open(
            "background_options context_management image include max_tool_calls metadata moderation "
            "prompt_cache_key prompt_cache_options prompt_cache_retention safety_identifier service_tier store "
            "stream_options top_logprobs truncation user"
        ),
    ),
    "additionalProperties": False,
}  # fmt: skip

# --- messages -------------------------------------------------------------------------------------------------------

_USES: Final = ("tool_use", "server_tool_use", "mcp_tool_use")
_SOURCE: Final = _any_of(
    _tagged("url", "url", url=_TEXT),
    _tagged("base64", "data", "media_type", data={"type": "string", "pattern": f"^{_BASE64}$"}, media_type=_TEXT),
    {"type": "object", "not": _has("type", {"enum": ["url", "base64"]})},
)
_RESULT_TYPES: Final = ("text", "image", *_USES, "tool_result", "thinking", "redacted_thinking")
_PLAIN_BLOCKS: Final = (
    _tagged("text", "text", text=_TEXT),
    _tagged("image", "source", source=_SOURCE),
    *(_tagged(tag, "id", "name", "input", id=_TEXT, name=_TEXT, input=_OBJECT) for tag in _USES),
    _tagged("thinking", "thinking", "signature", thinking=_TEXT, signature=_TEXT),
    _tagged("thinking", signature=_NULL),
    _tagged("redacted_thinking", "data", data=_TEXT),
    _other(*_RESULT_TYPES),
)
_PLAIN_BLOCK: Final = _any_of(*_PLAIN_BLOCKS)
_TOOL_RESULT: Final = _tagged(
    "tool_result", "tool_use_id", tool_use_id=_TEXT, is_error=_FLAG,
    content=_any_of(_NULL, _TEXT, _list(_PLAIN_BLOCK)),
)  # fmt: skip
_SAID_BLOCK: Final = {**_PLAIN_BLOCK, "not": _tagged("text", text={"pattern": _BLANK})}
_MESSAGE: Final = _any_of(
    _object(("role", "content"), role={"const": "user"}, content=_any_of(
        _SAID, _list(_TOOL_RESULT, 1), _list(_any_of(_SAID_BLOCK, _TOOL_RESULT), 1),
        {**_list(_PLAIN_BLOCK), "contains": _SAID_BLOCK},
    )),
    _object(
        ("role", "content"), role={"enum": ["assistant", "system"]},
        content=_any_of(_TEXT, _list(_any_of(_PLAIN_BLOCK, _TOOL_RESULT), 1)),
    ),
)  # fmt: skip

# https://docs.anthropic.com/en/api/messages, without what is for the account that pays, which is not the client's.
MESSAGES: Final[Shape] = {
    "title": "MessagesRequest",
    **_object(
        ("model", "messages"),
        model=_MODEL, messages=_list(_MESSAGE, 1), max_tokens=_COUNT, stream=_FLAG, temperature=_NUMBER,
        top_p=_NUMBER, stop_sequences=_maybe(_STOPS),
        system=_any_of(_NULL, _TEXT, _list(_PLAIN_BLOCK, 1)),
        tools=_maybe(_list(_any_of(
            _object(
                ("name", "input_schema"), type={"enum": ["custom", None]}, name=_TEXT, input_schema=_OBJECT, **_TOOL
            ),
            {**_other("custom"), "properties": {**_other("custom")["properties"], "name": _TEXT_OR_NONE}},
        ))),
        tool_choice=_any_of(
            _NULL,
            _object(("type",), type={"enum": ["auto", "any", "none"]}, disable_parallel_tool_use=_FLAG),
            _tagged("tool", "name", name=_TEXT, disable_parallel_tool_use=_FLAG),
        ),
        output_config=_maybe(_object(effort=_TEXT_OR_NONE, format=_any_of(
            _NULL, _tagged("json_schema", "schema", schema=_OBJECT),
            {"type": "object", "not": _has("type", {"const": "json_schema"})},
        ))),
        **_open(
            "cache_control compaction container context_management diagnostics fallbacks inference_geo mcp_servers "
            "metadata output_format service_tier speed thinking thread top_k"
        ),
    ),
    "additionalProperties": False,
}  # fmt: skip

# --- the AI SDK -----------------------------------------------------------------------------------------------------

_ADDRESS: Final = {"type": "string", "pattern": f"^([Hh][Tt][Tt][Pp][Ss]?:|data:image/[a-z]+;base64,{_BASE64}$)"}
_UI_TEXT: Final = _tagged("text", "text", text=_TEXT)
_UI_FILE: Final = _tagged(
    "file", "mediaType", "url", mediaType={"type": "string", "pattern": "^[Ii][Mm][Aa][Gg][Ee](/|$)"}, url=_ADDRESS
)
_OWN: Final = _maybe(_object(multiAgentScheduler=_maybe(_object(
    signature=_TEXT_OR_NONE, redacted=_TEXT_OR_NONE, id=_TEXT_OR_NONE, protocol=_TEXT_OR_NONE
))))  # fmt: skip
_CALL_TYPE: Final[Shape] = {"type": "string", "pattern": "^tool-"}
_ENDED: Final = {
    "toolCallId": _TEXT, "errorText": _TEXT_OR_NONE, "approval": _maybe(_object(reason=_TEXT_OR_NONE)),
    "callProviderMetadata": _OWN, "providerExecuted": _FLAG,
    "state": {"enum": ["input-available", "output-available", "output-error", "output-denied", "approval-requested",
                       "approval-responded", "input-streaming"]},
}  # fmt: skip
_UI_PART: Final = _any_of(
    _UI_TEXT,
    _tagged("reasoning", text=_TEXT_OR_NONE, providerMetadata=_OWN),
    _object(("type", "state", "toolCallId"), type=_CALL_TYPE, **_ENDED),
    _tagged("dynamic-tool", "state", "toolCallId", "toolName", toolName=_TEXT, **_ENDED),
    _tagged("data-reset", "data", data=_object(void={"type": ["integer", "null"], "minimum": 0})),
    _object(("type",), type={
        "type": "string", "not": _any_of({"enum": ["text", "reasoning", "dynamic-tool", "data-reset"]}, _CALL_TYPE)
    }),
)  # fmt: skip
_UI_ID: Final = _maybe({"type": "string", "minLength": 1, "maxLength": 200})
_UI_MESSAGE: Final = _any_of(
    _object(("role", "parts"), id=_UI_ID, role={"const": "system"}, parts=_list(_any_of(_UI_TEXT, _other("text")))),
    _object(("role", "parts"), id=_UI_ID, role={"const": "user"}, parts={
        **_list(_any_of(_UI_TEXT, _UI_FILE, _other("text", "file"))),
        "contains": _any_of(_tagged("text", "text", text=_SAID), _UI_FILE),
    }),
    _object(("role", "parts"), id=_UI_ID, role={"const": "assistant"}, parts=_list(_UI_PART)),
)  # fmt: skip
_UI_MESSAGES: Final = {**_list(_UI_MESSAGE), "contains": _has("role", {"const": "user"})}
SERVERS_OWN: Final = ("apiKey", "api_key", "baseURL", "base_url", "headers")
"""What settings of the SDK no page may make."""
_REFUSED: Final[Shape] = {"type": "null", "description": "is for the server to say"}
_SETTINGS: Final[Mapping[str, Shape]] = {
    "model": _TEXT_OR_NONE, "system": _TEXT_OR_NONE, "maxOutputTokens": _COUNT, "temperature": _NUMBER,
    "topP": _NUMBER, "stopSequences": _maybe(_STOPS), "seed": _SEED, "n": _ONE,
    "tools": _maybe({
        "type": "object", "additionalProperties": _object(description=_TEXT_OR_NONE, inputSchema=_OBJECT_OR_NONE)
    }),
    "toolChoice": _any_of(
        {"enum": ["auto", "none", "required", None]}, _tagged("tool", "toolName", toolName=_TEXT)
    ),
    **dict.fromkeys(SERVERS_OWN, _REFUSED),
}  # fmt: skip

PAGE: Final[Shape] = {
    "title": "PageRequest",
    **_object(
        ("id", "messages"), id={"type": "string", "minLength": 1, "maxLength": 200}, messages=_UI_MESSAGES,
        trigger={"enum": ["submit-message", "regenerate-message", None]}, messageId=_TEXT_OR_NONE, **_SETTINGS,
    ),
}  # fmt: skip
"""What ``useChat`` posts. A page may send what it likes beside it."""

OBJECT: Final[Shape] = {
    "title": "ObjectRequest",
    **_any_of(
        _SAID,
        _object(("prompt",), prompt=_SAID, messages=_NULL, schema=_OBJECT_OR_NONE, **_SETTINGS),
        _object(("messages",), prompt=_NULL, messages=_UI_MESSAGES, schema=_OBJECT_OR_NONE, **_SETTINGS),
    ),
}
"""What ``useObject`` submits."""
