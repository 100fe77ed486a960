"""Gemini's answers to records: what no recording shows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multi_agent_scheduler.records import (
    TERMINALS,
    Citation,
    Completed,
    Failed,
    Interrupted,
    Reasoning,
    Record,
    Text,
    ToolCall,
    Unknown,
    Usage,
)
from multi_agent_scheduler.wire.gemini import Decoder
from tests.wire.gemini_answers import answer, calls_of, events, records_of
from tests.wire.replay import decode

# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "unified"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("FUNCTION_CALL", "tool_calls"),
        ("CONTINUATION", "pause"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "other"),
        ("UNEXPECTED_TOOL_CALL", "other"),
        ("A_WORD_OF_NEXT_YEAR", "other"),
    ],
)
def test_finish_reasons(word: str, unified: Any) -> None:
    assert records_of(answer({"text": "x"}, finish=word))[-1] == Completed(unified, raw_stop_reason=word)


def test_the_zero_value_of_the_reason_is_no_finish() -> None:
    assert isinstance(records_of(answer({"text": "x"}, finish="FINISH_REASON_UNSPECIFIED"))[-1], Interrupted)


def test_usage_after_the_finish_still_counts() -> None:
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 1, "totalTokenCount": 4}
    records = records_of(answer({"text": "x"}, finish="STOP"), {"usageMetadata": usage})
    assert [type(record) for record in records] == [Text, Usage, Completed]


def test_the_outcome_waits_for_the_end_of_the_body() -> None:
    decoder = Decoder()
    assert [type(r) for r in decoder.feed(events(answer({"text": "x"}, finish="STOP")))] == [Text]
    assert not decoder.done
    assert decoder.close() == [Completed("stop", raw_stop_reason="STOP")]
    assert decoder.done
    assert decoder.close() == []


def test_what_google_says_of_a_broken_call_is_kept() -> None:
    records = records_of(answer(finish="MALFORMED_FUNCTION_CALL", finishMessage="Malformed function call: f(x="))
    raw = {"candidates": [{"finishMessage": "Malformed function call: f(x="}]}
    assert records == [
        Unknown(raw=raw, protocol="gemini"),
        Completed("other", raw_stop_reason="MALFORMED_FUNCTION_CALL"),
    ]


def test_a_block_with_details_keeps_them() -> None:
    feedback = {
        "blockReason": "SAFETY",
        "safetyRatings": [{"category": "HARM_CATEGORY_HATE_SPEECH", "probability": "HIGH", "blocked": True}],
    }
    records = records_of({"promptFeedback": feedback}, {"promptFeedback": feedback})
    assert records == [
        Unknown(raw={"promptFeedback": feedback}, protocol="gemini"),
        Completed("content_filter", raw_stop_reason="SAFETY"),
    ]


def test_every_candidate_must_finish() -> None:
    first = {"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]}
    second = {"candidates": [{"content": {"parts": [{"text": "b"}]}, "index": 1}]}
    end = {"candidates": [{"finishReason": "MAX_TOKENS", "index": 1}]}
    assert isinstance(records_of(first, second)[-1], Interrupted)
    assert records_of(first, second, end) == [
        Text(text="a"),
        Text(text="b", branch="1"),
        Unknown(raw=end, protocol="gemini", branch="1"),
        Completed("stop", raw_stop_reason="STOP"),
    ]


# --- parts ------------------------------------------------------------------------------------------------------------


def test_parts_count_up_where_the_kind_changes() -> None:
    code = {"executableCode": {"language": "PYTHON", "code": "1"}}
    records = records_of(
        answer({"text": "hm", "thought": True}),
        answer({"text": "m", "thought": True}, {"text": "a"}),
        answer({"text": ""}, {"text": "b"}, code, {"text": ""}),
        answer({"text": "c"}, finish="STOP"),
    )
    assert records[:-1] == [
        Reasoning(text="hm", part=0),
        Reasoning(text="m", part=0),
        Text(text="a", part=1),
        Text(text="b", part=1),
        Unknown(raw=code, protocol="gemini", part=2),
        Text(text="c", part=3),
    ]


def test_what_follows_a_signature_is_not_joined_to_what_it_seals() -> None:
    records = records_of(
        answer({"text": "t", "thought": True}),
        answer({"text": "", "thought": True, "thoughtSignature": "s1"}, {"text": "u", "thought": True}),
        answer({"text": "a", "thoughtSignature": "s2"}, {"text": "b"}, {"thoughtSignature": "s3"}, finish="STOP"),
    )
    assert records[:-1] == [
        Reasoning(text="t", part=0),
        Reasoning(part=0, signature="s1"),
        Reasoning(text="u", part=1),
        Text(text="a", part=2),
        Reasoning(part=3, signature="s2"),
        Text(text="b", part=4),
        Reasoning(part=5, signature="s3"),
    ]


def test_a_field_that_is_new_on_a_known_part_is_kept_beside_it() -> None:
    records = records_of(
        answer({"text": "a", "partMetadata": {"k": 1}}, {"functionCall": {"name": "f", "mood": "calm"}, "new": 1})
    )
    assert records[:-1] == [
        Text(text="a"),
        Unknown(raw={"partMetadata": {"k": 1}}, protocol="gemini", part=1),
        ToolCall(index=0, id="call_0", name="f", arguments="{}", part=2),
        Unknown(raw={"new": 1, "functionCall": {"mood": "calm"}}, protocol="gemini", part=3),
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        {"fileData": {"fileUri": "gs://x"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
        {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB"}, "thoughtSignature": "s", "text": ""},
        {"somethingNew": 1},
        {"text": ["odd"]},
        "no object",
        17,
    ],
)
def test_parts_without_a_record_of_their_own_are_carried_whole(part: Any) -> None:
    assert records_of(answer(part, finish="STOP"))[0] == Unknown(raw=part, protocol="gemini", part=0)


def test_ids_of_calls() -> None:
    call = {"functionCall": {"name": "f", "args": {"b": 1, "a": "é"}}}
    own = {"functionCall": {"name": "g", "id": "own"}}
    records = records_of({"responseId": "r-1", **answer(call, own, call, finish="STOP")})
    assert records == [
        ToolCall(index=0, id="call_r-1_0", name="f", arguments='{"b":1,"a":"é"}', part=0),
        ToolCall(index=1, id="own", name="g", arguments="{}", part=1),
        ToolCall(index=2, id="call_r-1_2", name="f", arguments='{"b":1,"a":"é"}', part=2),
        Completed("tool_calls", raw_stop_reason="STOP"),
    ]


def test_the_id_of_an_answer_that_is_no_plain_word_is_not_used_for_calls() -> None:
    records = records_of({"responseId": "a b\n", **answer({"functionCall": {"name": "f"}}, finish="STOP")})
    assert isinstance(records[0], ToolCall)
    assert records[0].id == "call_0"


def test_calls_of_another_candidate_have_ids_of_their_own() -> None:
    call = {"content": {"parts": [{"functionCall": {"name": "f"}}]}, "finishReason": "STOP"}
    records = records_of({"candidates": [call, {**call, "index": 1}]})
    assert [(r.id, r.index, r.branch) for r in records if isinstance(r, ToolCall)] == [
        ("call_0", 0, None),
        ("call_1_0", 0, "1"),
    ]


def streamed_call(*calls: Any, finish: str | None = "STOP") -> list[Record]:
    parts = [answer({"functionCall": call}) for call in calls]
    if finish is not None:
        parts.append(answer(finish=finish))
    return records_of(*parts)


def piece(path: str, more: bool = True, **value: Any) -> dict[str, Any]:
    return {"partialArgs": [{"jsonPath": path, **value}], "willContinue": more}


def test_streamed_arguments_are_shown_as_they_come() -> None:
    records = streamed_call(
        {"name": "f", "willContinue": True},
        piece("$.text", stringValue='say "h', willContinue=True),
        piece("$.text", stringValue='i"'),
        piece("$.list[0].n", numberValue=1),
        piece("$.list[1].n", nullValue="NULL_VALUE"),
        piece("$['b c']", boolValue=True),
        {},
    )
    assert [r.arguments for r in records if isinstance(r, ToolCall)] == [
        "",
        '{"text":"say \\"h',
        'i\\"',
        '","list":[{"n":1',
        '},{"n":null',
        '}],"b c":true',
        "}",
    ]
    assert calls_of(records) == [("f", {"text": 'say "hi"', "list": [{"n": 1}, {"n": None}], "b c": True})]


def test_a_call_is_closed_by_the_next_one_and_by_a_stop() -> None:
    records = streamed_call({"name": "f", "willContinue": True}, piece("$.a", stringValue="x"), {"name": "g"})
    assert calls_of(records) == [("f", {"a": "x"}), ("g", {})]
    records = streamed_call({"name": "f", "willContinue": True}, piece("$.a", stringValue="x"))
    assert calls_of(records) == [("f", {"a": "x"})]


@pytest.mark.parametrize("finish", ["MAX_TOKENS", None])
def test_arguments_that_were_cut_off_stay_cut_off(finish: str | None) -> None:
    records = streamed_call({"name": "f", "willContinue": True}, piece("$.a", stringValue="x"), finish=finish)
    assert "".join(r.arguments for r in records if isinstance(r, ToolCall)) == '{"a":"x'


def test_a_piece_that_has_no_place_is_kept() -> None:
    records = streamed_call({"name": "f", "willContinue": True}, piece("$..a", stringValue="x"), {})
    raw = {"functionCall": {"partialArgs": [{"jsonPath": "$..a", "stringValue": "x"}], "willContinue": True}}
    assert Unknown(raw=raw, protocol="gemini", part=0) in records
    assert calls_of(records) == [("f", {})]


def test_text_between_the_pieces_of_a_call() -> None:
    records = records_of(
        answer({"functionCall": {"name": "f", "willContinue": True}}),
        answer({"text": "x"}),
        answer({"functionCall": piece("$.a", more=False, stringValue="y")}, finish="STOP"),
    )
    assert calls_of(records) == [("f", {"a": "y"})]
    assert {r.part for r in records if isinstance(r, ToolCall)} == {0}


# --- beside the parts -------------------------------------------------------------------------------------------------


def test_citations_name_the_source_and_the_piece_of_text() -> None:
    metadata = {
        "groundingChunks": [{"web": {"uri": "https://a", "title": "A"}}, {"maps": {"uri": "https://m"}}, {"web": {}}],
        "groundingSupports": [
            {"segment": {"endIndex": 4, "text": "Text"}, "groundingChunkIndices": [0, 7]},
            {"segment": {"startIndex": 5, "endIndex": 9}, "groundingChunkIndices": [0, 1]},
        ],
        "webSearchQueries": ["q"],
    }
    records = records_of(answer({"text": "Text more"}, finish="STOP", groundingMetadata=metadata))
    cited = [record for record in records if isinstance(record, Citation)]
    assert [(c.url, c.title, c.text, c.start, c.end) for c in cited] == [
        ("https://a", "A", "Text", 0, 4),
        ("https://a", "A", None, 5, 9),
        ("https://m", None, None, 5, 9),
        (None, None, None, None, None),
    ]
    assert Unknown(raw={"candidates": [{"groundingMetadata": metadata}]}, protocol="gemini") in records


@pytest.mark.parametrize("key", ["citationSources", "citations"])
def test_recited_sources_are_citations(key: str) -> None:
    source = {"startIndex": 2, "endIndex": 9, "uri": "https://b", "license": "mit"}
    records = records_of(answer({"text": "x"}, finish="STOP", citationMetadata={key: [source]}))
    assert records[1] == Citation(url="https://b", start=2, end=9, raw={"citationSource": source})


def test_metadata_that_repeats_is_given_once() -> None:
    metadata = {"webSearchQueries": ["q"]}
    one = answer({"text": "x"}, groundingMetadata=metadata, avgLogprobs=-0.5)
    records = records_of(one, one, answer({"text": "y"}, finish="STOP", groundingMetadata={}))
    assert [type(record) for record in records] == [Text, Unknown, Unknown, Text, Text, Completed]


def test_only_safety_ratings_that_say_something_are_kept() -> None:
    quiet = [{"category": "C", "probability": "NEGLIGIBLE", "probabilityScore": 0.1}]
    loud = [{"category": "C", "probability": "MEDIUM"}]
    records = records_of(
        answer({"text": "x"}, safetyRatings=quiet), answer({"text": "y"}, finish="STOP", safetyRatings=loud)
    )
    assert [r.raw for r in records if isinstance(r, Unknown)] == [{"candidates": [{"safetyRatings": loud}]}]


def test_an_unknown_field_of_the_answer_is_kept() -> None:
    records = records_of({**answer({"text": "x"}, finish="STOP"), "modelStatus": {"stage": "DEPRECATED"}})
    assert Unknown(raw={"modelStatus": {"stage": "DEPRECATED"}}, protocol="gemini") in records


def test_usage_counts_tools_and_thoughts_and_is_given_when_it_changes() -> None:
    raw = {
        "promptTokenCount": "10",
        "toolUsePromptTokenCount": 5,
        "cachedContentTokenCount": 4,
        "candidatesTokenCount": 7.0,
        "thoughtsTokenCount": 3,
    }
    records = records_of(
        {**answer({"text": "a"}), "usageMetadata": raw}, {**answer({"text": "b"}), "usageMetadata": raw}
    )
    assert [record for record in records if isinstance(record, Usage)] == [
        Usage(input_tokens=15, output_tokens=10, reasoning_tokens=3, cache_read_tokens=4, raw=raw)
    ]


@pytest.mark.parametrize(
    ("raw", "given", "output"),
    [
        ({"promptTokenCount": 3, "thoughtsTokenCount": 5, "totalTokenCount": 9}, 3, 5),
        ({"promptTokenCount": 3, "totalTokenCount": 9}, 3, 6),
        ({"promptTokenCount": 3}, 3, None),
        ({"totalTokenCount": 3, "candidatesTokenCount": "x"}, None, None),
    ],
)
def test_usage_with_counts_left_out(raw: Any, given: int | None, output: int | None) -> None:
    usage = records_of({"usageMetadata": raw})[0]
    assert isinstance(usage, Usage)
    assert (usage.input_tokens, usage.output_tokens) == (given, output)


def test_usage_without_a_count_is_unknown() -> None:
    usage = records_of({"usageMetadata": {"trafficType": "ON_DEMAND"}})[0]
    assert usage == Usage(source="unknown", raw={"trafficType": "ON_DEMAND"})


# --- other shapes -----------------------------------------------------------------------------------------------------


def test_one_json_object_is_an_answer() -> None:
    body = json.dumps({**answer({"text": "hi"}, finish="STOP"), "modelVersion": "m"}).encode()
    assert decode(Decoder, [body[:9], body[9:]]) == [Text(text="hi"), Completed("stop", raw_stop_reason="STOP")]


def test_an_error_in_a_json_list_keeps_what_came_before() -> None:
    body = json.dumps([answer({"text": "hi"}), {"error": {"code": 500, "message": "x", "status": "INTERNAL"}}]).encode()
    text, outcome = decode(Decoder, [body])
    assert text == Text(text="hi")
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "server_error"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "protocol_error"),
        (b"[]", "protocol_error"),
        (b'{"object":"list"}', "protocol_error"),
        (b'[{"a":1}]', "protocol_error"),
        (b"[1]", "protocol_error"),
        (b"<html></html>", "protocol_error"),
        (b'[{"error":{"code":404,"message":"no such model","status":"NOT_FOUND"}}]', "not_found_error"),
        (b'data: {"candidates":[{"content"\n\n', "protocol_error"),
    ],
)
def test_bodies_that_are_no_answer(body: bytes, code: str) -> None:
    (outcome,) = decode(Decoder, [body])
    assert isinstance(outcome, Failed)
    assert outcome.error.code == code


def test_a_retry_delay_in_mid_stream() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}]
    error = {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED", "details": details}
    (outcome,) = records_of({"error": error})
    assert isinstance(outcome, Failed)
    assert (outcome.error.code, outcome.error.retry_after) == ("rate_limit_error", 7.5)


KEYS = [
    *("candidates", "content", "parts"),
    *("text", "thought", "thoughtSignature", "functionCall", "name", "args", "id"),
    *("partialArgs", "jsonPath", "stringValue", "willContinue"),
    *("finishReason", "index", "usageMetadata", "promptTokenCount", "promptFeedback", "blockReason", "safetyRatings"),
    *("error", "code", "status", "details", "groundingMetadata", "groundingChunks", "groundingSupports", "segment"),
    *("groundingChunkIndices", "citationMetadata", "citationSources", "probability", "responseId", "modelVersion", "x"),
]
SCALARS = (
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats(allow_nan=False) | st.sampled_from(["", "STOP", "$.a"])
)
ANY = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner))
PART = st.dictionaries(st.sampled_from(KEYS[3:14]), ANY, max_size=4) | ANY
CANDIDATE = st.fixed_dictionaries(
    {}, optional={"content": st.fixed_dictionaries({"parts": st.lists(PART, max_size=3) | ANY}) | ANY, "index": ANY}
)
EVENT = ANY | st.fixed_dictionaries(
    {"candidates": st.lists(CANDIDATE | ANY, max_size=3)},
    optional=dict.fromkeys(("usageMetadata", "promptFeedback", "responseId", "modelStatus", "x"), ANY),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(EVENT | st.fixed_dictionaries({"functionCall": ANY}), max_size=4), st.booleans())
def test_any_events_end_in_exactly_one_terminal(payloads: list[Any], as_list: bool) -> None:
    body = json.dumps(payloads).encode() if as_list else events(*payloads)
    records = decode(Decoder, [body])
    assert [isinstance(record, TERMINALS) for record in records] == [False] * (len(records) - 1) + [True]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_end_in_exactly_one_terminal(body: bytes) -> None:
    for start in (b"", b"data: ", events(answer({"text": "x"})) + b"data: "):
        records = decode(Decoder, [start, body, b"\n\n"])
        assert [isinstance(record, TERMINALS) for record in records] == [False] * (len(records) - 1) + [True]


def test_nesting_as_deep_as_json_may_be_does_not_raise() -> None:
    for depth in (*range(100, 1100, 50), *range(940, 1000)):
        deep = b'{"a":' * depth + b"1" + b"}" * depth
        call = b'data: {"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":' + deep + b"}}]}}]}\n\n"
        assert isinstance(decode(Decoder, [call, call])[-1], Failed | Interrupted)
        odd = b'data: {"x":' + deep + b"}\n\n"
        assert isinstance(decode(Decoder, [odd, odd])[-1], Failed | Interrupted)
        assert isinstance(decode(Decoder, [b"[" + deep + b"]"])[-1], Failed)
