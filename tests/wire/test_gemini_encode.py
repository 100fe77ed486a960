"""Records to Gemini's answers, and back."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multi_agent_scheduler.errors import ErrorInfo, StreamReset
from multi_agent_scheduler.records import (
    CallEnded,
    CallStarted,
    Cancelled,
    Citation,
    Completed,
    Failed,
    Interrupted,
    Reasoning,
    Record,
    Refusal,
    Reset,
    Skipped,
    Text,
    ToolCall,
    ToolResult,
    Unknown,
    Usage,
)
from multi_agent_scheduler.wire.gemini import Decoder, Encoder
from tests.wire.gemini_answers import answer, calls_of, events, reasoning_of, records_of, text_of
from tests.wire.replay import Recording, decode, recordings

RECORDINGS = recordings("generatecontent", folders=("registry", "fetched", "synthetic"))
every = pytest.mark.parametrize("recording", RECORDINGS, ids=str)
STOP = Completed("stop", raw_stop_reason="STOP")


def joined(records: list[Record]) -> list[Record]:
    """The same records with the fragments of each call joined, where its last one was."""
    fragments: dict[tuple[str | None, int], list[ToolCall]] = {}
    for record in records:
        if isinstance(record, ToolCall):
            fragments.setdefault((record.branch, record.index), []).append(record)
    out: list[Record] = []
    for record in records:
        if not isinstance(record, ToolCall):
            out.append(record)
            continue
        pieces = fragments[record.branch, record.index]
        if record is pieces[-1]:
            text = "".join(piece.arguments for piece in pieces)
            signature = next((piece.signature for piece in pieces if piece.signature), None)
            out.append(msgspec.structs.replace(pieces[0], arguments=text, signature=signature))
    return out


def encoded(records: list[Record], seed: int | None = None, **envelope: Any) -> bytes:
    encoder = Encoder(**envelope)
    if seed is None:
        return encoder.encode(records)
    body, start, rng = b"", 0, random.Random(seed)
    while start < len(records):
        size = rng.randrange(1, 4)
        body += encoder.encode(records[start : start + size])
        start += size
    return body


def payloads(body: bytes) -> list[Any]:
    return [json.loads(line.removeprefix(b"data: ")) for line in body.split(b"\n\n") if line]


@every
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_a_recording_comes_back(recording: Recording, seed: int | None) -> None:
    records = decode(Decoder, [recording.body])
    assert decode(Decoder, [encoded(records, seed)]) == joined(records)


@every
def test_the_whole_answer_of_a_recording(recording: Recording) -> None:
    records = decode(Decoder, [recording.body])
    body = Encoder(id="r", model="m").body(records)
    again = decode(Decoder, [json.dumps(body).encode()])
    if recording.expected.get("outcome") == "error":
        assert body == {"error": {"code": 503, "message": body["error"]["message"], "status": "UNAVAILABLE"}}
        return
    assert body["responseId"] == "r"
    assert body["modelVersion"] == "m"
    assert text_of(again) == text_of(records)
    assert reasoning_of(again) == reasoning_of(records)
    assert calls_of(again) == calls_of(records)
    assert again[-1] == records[-1]
    for kind in (Usage, Citation):
        assert [r for r in records if isinstance(r, kind)][-1:] == [r for r in again if isinstance(r, kind)][-1:]
    signatures = [[r.signature for r in one if isinstance(r, Reasoning) and r.signature] for one in (records, again)]
    assert signatures[0] == signatures[1]


def test_text_is_one_part_of_the_whole_answer_with_its_signature() -> None:
    (recording,) = [one for one in RECORDINGS if one.file == "google-generatecontent-004.sse"]
    (candidate,) = Encoder().body(decode(Decoder, [recording.body]))["candidates"]
    (part,) = candidate["content"]["parts"]
    assert part["text"] == recording.expected["text"]
    assert part["thoughtSignature"].startswith("EqsF")
    assert (candidate["finishReason"], candidate["content"]["role"], candidate["index"]) == ("STOP", "model", 0)


def test_what_follows_a_signature_is_a_part_of_its_own_in_the_whole_answer() -> None:
    records: list[Record] = [Text(text="a"), Reasoning(part=1, signature="s"), Text(text="b", part=2), STOP]
    assert Encoder().body(records)["candidates"][0]["content"]["parts"] == [
        {"text": "a", "thoughtSignature": "s"},
        {"text": "b"},
    ]


SIGNATURE = st.sampled_from(["s1", "s2"])
PARTS = st.one_of(
    st.fixed_dictionaries({"text": st.text(max_size=3)}, optional={"thought": st.just(True)}),
    st.fixed_dictionaries(
        {"text": st.text(max_size=3), "thoughtSignature": SIGNATURE}, optional={"thought": st.just(True)}
    ),
    st.fixed_dictionaries(
        {
            "functionCall": st.fixed_dictionaries(
                {"name": st.sampled_from(["f", "g"])},
                optional={
                    "id": st.text("ab", min_size=1, max_size=2),
                    "args": st.dictionaries(st.text(max_size=2), st.integers() | st.text(max_size=2), max_size=2),
                },
            )
        },
        optional={"thoughtSignature": SIGNATURE},
    ),
    st.sampled_from(
        [{"executableCode": {"code": "1"}, "thoughtSignature": "s"}, {"inlineData": {"data": ""}}, {"new": 1}]
    ),
)
METADATA: Any = {
    "groundingMetadata": st.sampled_from(
        [
            {"webSearchQueries": ["q"]},
            {
                "groundingChunks": [{"web": {"uri": "u"}}],
                "groundingSupports": [{"segment": {"endIndex": 1}, "groundingChunkIndices": [0]}],
            },
        ]
    ),
    "finishMessage": st.just("because"),
}
ANSWERS = st.lists(
    st.builds(
        lambda parts, index, metadata, usage: {
            "candidates": [{"content": {"parts": parts}, "index": index, **metadata}],
            **({"usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": usage}} if usage else {}),
        },
        st.lists(PARTS, max_size=3),
        st.sampled_from([0, 0, 0, 1]),
        st.fixed_dictionaries({}, optional=METADATA),
        st.integers(0, 3),
    ),
    max_size=5,
)
FINISH = st.sampled_from(
    ["STOP", "MAX_TOKENS", "SAFETY", "OTHER", "MALFORMED_FUNCTION_CALL", "NEW_WORD", "CONTINUATION"]
)


@settings(max_examples=80, deadline=None)
@given(ANSWERS, FINISH, st.none() | st.integers(0, 9))
def test_any_answer_of_gemini_comes_back(answers: list[Any], finish: str, seed: int | None) -> None:
    second = any(one["candidates"][0]["index"] == 1 for one in answers)
    ends = [{"candidates": [{"finishReason": "STOP", "index": 1}]}] if second else []
    records = records_of(*answers, *ends, answer(finish=finish))
    assert decode(Decoder, [encoded(records, seed, id="r", model="m", created=0)]) == records


TEXTS = st.text(max_size=4)
FOREIGN: Any = st.one_of(
    st.builds(Text, text=TEXTS, part=st.integers(0, 3), branch=st.sampled_from([None, None, "1", "a"])),
    st.builds(
        Reasoning,
        text=TEXTS,
        part=st.integers(0, 3),
        signature=st.none() | SIGNATURE,
        redacted=st.none() | st.just("r"),
        kind=st.sampled_from([None, "summary"]),
    ),
    st.builds(Refusal, text=TEXTS),
    st.builds(
        ToolCall,
        index=st.integers(0, 2),
        id=st.sampled_from(["", "i"]),
        name=st.sampled_from(["", "f"]),
        arguments=st.sampled_from(["", "{", '"a":', "1}", "{}", "x", "[]"]),
        kind=st.sampled_from(["function", "custom", "server"]),
    ),
    st.builds(ToolResult, id=st.just("i"), content=st.just("c")),
    st.builds(Citation, url=st.none() | st.just("u"), text=st.none() | st.just("t"), raw=st.just({"type": "x"})),
    st.builds(
        Usage,
        input_tokens=st.none() | st.integers(0, 5),
        output_tokens=st.none() | st.integers(0, 5),
        reasoning_tokens=st.none() | st.integers(0, 2),
        call=st.integers(0, 2),
        raw=st.none() | st.just({"prompt_tokens": 1}),
    ),
    st.just(CallStarted(call=1, agent="a")),
    st.just(CallEnded(call=1, outcome="completed")),
    st.just(Unknown(raw={"type": "ping"}, protocol="anthropic")),
)
INFO = ErrorInfo("overloaded_error", "the provider is overloaded")
ENDS = st.sampled_from(
    [
        STOP,
        Completed("length", raw_stop_reason="max_tokens"),
        Completed("content_filter"),
        Failed(INFO),
        Interrupted(INFO),
        Cancelled("x"),
        Skipped(),
    ]
)


@settings(max_examples=80, deadline=None)
@given(st.lists(FOREIGN, max_size=8), ENDS, st.none() | st.integers(0, 9))
def test_any_stream_can_be_shown_and_ends_as_it_did(records: list[Record], end: Any, seed: int | None) -> None:
    again = decode(Decoder, [encoded([*records, end], seed)])
    said = "".join(r.text for r in records if isinstance(r, Text | Refusal) and r.branch is None)
    assert text_of(again) == said
    assert reasoning_of(again) == reasoning_of(records)
    assert isinstance(again[-1], Completed) == isinstance(end, Completed)
    if isinstance(again[-1], Completed) and end.stop_reason != "stop":
        assert again[-1].stop_reason == end.stop_reason
    whole = Encoder().body([*records, end])
    assert ("error" in whole) == (not isinstance(end, Completed))
    json.dumps(whole)


def test_a_batch_is_one_event_with_the_envelope() -> None:
    encoder = Encoder(id="r", model="m", created=1_700_000_000)
    envelope = {"modelVersion": "m", "createTime": "2023-11-14T22:13:20Z", "responseId": "r"}
    content = {"parts": [{"text": "a"}, {"text": "b"}], "role": "model"}
    assert payloads(encoder.encode([Text(text="a"), Text(text="b")])) == [
        {"candidates": [{"content": content, "index": 0}], **envelope}
    ]
    assert encoder.encode([]) == b""
    assert encoder.encode([CallStarted(call=1, agent="a")]) == b""
    (last,) = payloads(encoder.encode([STOP]))
    assert last["candidates"][0]["finishReason"] == "STOP"
    assert encoder.encode([Text(text="late")]) == b""


def test_the_last_event_has_the_usage() -> None:
    encoder = Encoder()
    encoder.encode([Text(text="a"), Usage(input_tokens=5, output_tokens=9, reasoning_tokens=4, cache_read_tokens=2)])
    (last,) = payloads(encoder.encode([STOP]))
    assert last["usageMetadata"] == {
        "promptTokenCount": 5,
        "candidatesTokenCount": 5,
        "totalTokenCount": 14,
        "thoughtsTokenCount": 4,
        "cachedContentTokenCount": 2,
    }


def test_the_usage_of_several_calls_is_added_and_a_later_one_of_a_call_replaces() -> None:
    records: list[Record] = [
        Usage(input_tokens=1, output_tokens=1, call=1),
        Usage(input_tokens=1, output_tokens=2, call=1),
        Usage(input_tokens=10, output_tokens=20, call=2),
        STOP,
    ]
    usage = Encoder().body(records)["usageMetadata"]
    assert (usage["promptTokenCount"], usage["candidatesTokenCount"], usage["totalTokenCount"]) == (11, 22, 33)


def test_fragments_of_calls_become_whole_calls() -> None:
    records: list[Record] = [
        ToolCall(index=0, id="a", name="f"),
        ToolCall(index=0, arguments='{"x":'),
        ToolCall(index=1, id="b", name="g", arguments='{"y'),
        ToolCall(index=0, arguments=" 1 }"),
        ToolCall(index=1, arguments='":2}'),
    ]
    encoder = Encoder()
    assert b"functionCall" not in encoder.encode(records)
    parts = [p for e in payloads(encoder.encode([STOP])) for p in e["candidates"][0]["content"]["parts"]]
    assert parts == [
        {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}},
        {"functionCall": {"id": "b", "name": "g", "args": {"y": 2}}},
    ]


def test_calls_keep_their_order() -> None:
    calls = [("f", "{"), ("g", "{}"), ("h", "{}")]
    encoder = Encoder()
    for index, (name, arguments) in enumerate(calls):
        assert encoder.encode([ToolCall(index=index, id=name, name=name, arguments=arguments)]) == b""
    (last,) = payloads(encoder.encode([ToolCall(index=0, arguments="}"), STOP]))
    assert [p["functionCall"]["name"] for p in last["candidates"][0]["content"]["parts"]] == ["f", "g", "h"]


def test_a_complete_call_is_shown_before_the_end() -> None:
    encoder = Encoder()
    assert encoder.encode([ToolCall(index=0, id="a", name="f", arguments='{"x":1}')]) == b""
    assert b'"functionCall"' in encoder.encode([ToolCall(index=1, id="b", name="g")])


@pytest.mark.parametrize(
    ("kind", "arguments", "call"),
    [
        ("function", "", {"args": {}}),
        ("function", "[1]", {"args": {"input": [1]}}),
        ("custom", "free {text", {"args": {"input": "free {text"}}),
        (
            "function",
            '{"cut',
            {"partialArgs": [{"jsonPath": "$", "stringValue": '{"cut'}], "willContinue": True},
        ),
    ],
)
def test_arguments_that_are_no_object(kind: Any, arguments: str, call: Any) -> None:
    body = Encoder().body([ToolCall(index=0, id="i", name="f", arguments=arguments, kind=kind), STOP])
    assert body["candidates"][0]["content"]["parts"] == [{"functionCall": {"id": "i", "name": "f", **call}}]


def test_other_providers_citations_become_grounding() -> None:
    cited = [Citation(url="u", title="t", start=1, end=2, text="x", raw={"type": "url_citation"}), Citation(url="v")]
    body = Encoder().body([Text(text="x"), *cited, STOP])
    assert body["candidates"][0]["groundingMetadata"] == {
        "groundingChunks": [{"web": {"uri": "u", "title": "t"}}, {"web": {"uri": "v"}}],
        "groundingSupports": [{"segment": {"startIndex": 1, "endIndex": 2, "text": "x"}, "groundingChunkIndices": [0]}],
    }


def test_branches_that_are_numbers_are_candidates() -> None:
    records: list[Record] = [
        Text(text="a", branch="2"),
        Text(text="b", branch="judge"),
        Text(text="c", branch="0"),
        Text(text="d"),
        STOP,
    ]
    body = Encoder().body(records)
    assert [(c["index"], c["finishReason"], c["content"]["parts"]) for c in body["candidates"]] == [
        (0, "STOP", [{"text": "d"}]),
        (2, "STOP", [{"text": "a"}]),
    ]


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (
            Failed(ErrorInfo("rate_limit_error", "slow", retry_after=2.5)),
            {
                "code": 429,
                "message": "slow",
                "status": "RESOURCE_EXHAUSTED",
                "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2.5s"}],
            },
        ),
        (
            Failed(ErrorInfo("server_error", "ours", status=529, provider_code="overloaded_error", detail="theirs")),
            {"code": 529, "message": "theirs", "status": "INTERNAL"},
        ),
        (
            Interrupted(ErrorInfo("interrupted", "cut")),
            {"code": 503, "message": "cut", "status": "UNAVAILABLE"},
        ),
        (Cancelled("asked to stop"), {"code": 499, "message": "asked to stop", "status": "CANCELLED"}),
        (Skipped(), {"code": 499, "message": "the task was never run", "status": "CANCELLED"}),
    ],
)
def test_every_other_end_is_an_error_object(end: Any, error: Any) -> None:
    text, last = payloads(Encoder().encode([Text(text="a"), end]))
    assert text["candidates"][0]["content"]["parts"] == [{"text": "a"}]
    assert last == {"error": error}
    assert Encoder().body([Text(text="a"), end]) == {"error": error}


def test_a_failure_of_google_comes_back_as_it_was() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38s"}]
    error = {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": details}
    records = records_of(answer({"text": "a"}), {"error": error})
    assert decode(Decoder, [encoded(records)]) == records


def test_a_reset_before_content_is_nothing_and_after_it_is_raised() -> None:
    encoder = Encoder()
    assert encoder.encode([Reset(from_seq=1, reason="retry")]) == b""
    encoder.encode([Text(text="a")])
    with pytest.raises(StreamReset, match="another attempt"):
        encoder.encode([Reset(from_seq=1, reason="another attempt")])


@pytest.mark.parametrize("blocked", [True, False])
def test_a_block_before_any_content_is_one_of_the_prompt(blocked: bool) -> None:
    records: list[Record] = [] if blocked else [Text(text="a")]
    body = Encoder().body([*records, Completed("content_filter", raw_stop_reason="SAFETY")])
    if blocked:
        assert body == {"promptFeedback": {"blockReason": "SAFETY"}}
    else:
        assert body["candidates"][0]["finishReason"] == "SAFETY"


def test_details_of_a_block_are_in_the_whole_answer() -> None:
    feedback = {"blockReason": "OTHER", "blockReasonMessage": "no"}
    assert Encoder().body(records_of({"promptFeedback": feedback}))["promptFeedback"] == feedback


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (Completed("stop", raw_stop_reason="end_turn"), "STOP"),
        (Completed("tool_calls", raw_stop_reason="tool_use"), "STOP"),
        (Completed("stop_sequence", stop_sequence="x"), "STOP"),
        (Completed("length"), "MAX_TOKENS"),
        (Completed("content_filter", raw_stop_reason="refusal"), "SAFETY"),
        (Completed("other", raw_stop_reason="odd"), "OTHER"),
        (Completed("other", raw_stop_reason="FINISH_REASON_UNSPECIFIED"), "OTHER"),
        (Completed("other", raw_stop_reason="NO_IMAGE"), "NO_IMAGE"),
        (Completed("content_filter", raw_stop_reason="SPII"), "SPII"),
        (Completed("length", raw_stop_reason="STOP"), "MAX_TOKENS"),
    ],
)
def test_finish_words(outcome: Completed, word: str) -> None:
    assert Encoder().body([Text(text="a"), outcome])["candidates"][0]["finishReason"] == word


def test_a_json_text_with_line_breaks_stays_one_event() -> None:
    body = encoded(
        [ToolCall(index=0, id="i", name="f", arguments='{\n "a": "x\\ny"\n}'), Text(text="p\n\nq\u2028"), STOP]
    )
    assert body.count(b"\n\n") == len(payloads(body))
    assert calls_of(decode(Decoder, [body])) == [("f", {"a": "x\ny"})]


def test_events_of_the_test_itself_are_read_by_the_decoder() -> None:
    assert decode(Decoder, [events(answer({"text": "a"}, finish="STOP"))]) == [Text(text="a"), STOP]
