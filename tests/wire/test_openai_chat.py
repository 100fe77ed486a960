"""Decoding chat completions: the recordings of every provider, in every way that a network can deliver them."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import ErrorInfo
from multi_agent_scheduler.records import (
    TERMINALS,
    Completed,
    Failed,
    Interrupted,
    Reasoning,
    Record,
    Refusal,
    Text,
    ToolCall,
    Unknown,
    Usage,
)
from multi_agent_scheduler.wire import sse
from multi_agent_scheduler.wire.openai_chat import Decoder
from tests.wire.chat_frames import DONE, END, chunk, run
from tests.wire.replay import Recording, cuts, decode, recordings, respellings, splits

RECORDINGS = recordings("chat")
SYNTHETIC = recordings("chat", folders=("synthetic",))
MISTRAL_THINKING = "mistral-chat-002.sse"  # its reasoning and text are in lists, which the official client leaves out


def told(records: list[Record]) -> dict[str, Any]:
    """What the official client would say of these records."""
    text: dict[str, str] = {}
    reasoning: dict[str, str] = {}
    calls: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for record in records:
        choice = record.branch or "0"
        if isinstance(record, Text):
            text[choice] = text.get(choice, "") + record.text
        elif isinstance(record, Reasoning) and record.text:
            reasoning[choice] = reasoning.get(choice, "") + record.text
        elif isinstance(record, ToolCall):
            call = calls[choice].setdefault(record.index, {"id": "", "name": "", "arguments": ""})
            for field in ("id", "name", "arguments"):
                call[field] += getattr(record, field)
    return {
        "text": text,
        "reasoning": reasoning,
        "tool_calls": {k: [v[i] for i in sorted(v)] for k, v in calls.items()},
    }


@pytest.mark.parametrize("recording", RECORDINGS, ids=str)
class TestRecordings:
    def test_says_what_the_official_client_says(self, recording: Recording) -> None:
        records = decode(Decoder, [recording.body])
        expected, mine = recording.expected, told(records)
        if recording.file != MISTRAL_THINKING:
            assert mine["text"] == {key: text for key, text in expected["text"].items() if text}
            assert mine["reasoning"] == expected["reasoning"]
        wanted = {
            key: [{"id": c["id"], "name": c["name"], "arguments": c["arguments"]} for c in calls]
            for key, calls in expected["tool_calls"].items()
        }
        assert mine["tool_calls"] == wanted
        usages = [record for record in records if isinstance(record, Usage)]
        if expected["usage"] is not None:
            assert usages[-1].raw == expected["usage"]
        terminal = records[-1]
        if expected["error"]:
            assert isinstance(terminal, Failed)
        else:
            assert isinstance(terminal, Completed)
            assert terminal.raw_stop_reason == expected["finish_reason"]["0"]
        decoder = Decoder()
        decoder.feed(recording.body)
        assert decoder.model == expected.get("model", decoder.model)
        assert decoder.response_id

    def test_the_same_records_at_every_split(self, recording: Recording) -> None:
        whole = decode(Decoder, [recording.body])
        for number, pieces in enumerate(splits(recording.body)):
            if number == 0 and len(recording.body) > 10_000:
                continue  # byte by byte is for the small ones
            assert decode(Decoder, pieces) == whole

    def test_the_same_records_in_every_spelling(self, recording: Recording) -> None:
        whole = decode(Decoder, [recording.body])
        for body in respellings(recording.body):
            assert decode(Decoder, [body]) == whole

    def test_a_cut_before_the_finish_marker_is_no_success(self, recording: Recording) -> None:
        whole = decode(Decoder, [recording.body])
        marker = recording.body.rfind(b'"finish_reason":"')
        if recording.file.startswith("openrouter"):
            marker = recording.body.find(b'"finish_reason":"stop"')  # it is told twice
        for body in cuts(recording.body, rounds=10):
            records = decode(Decoder, [body])
            if marker < 0 or len(body) < marker or isinstance(whole[-1], Failed):
                assert isinstance(records[-1], Interrupted | Failed), body[-100:]
            assert whole[: len(records) - 1] == records[:-1]

    def test_parts_are_numbered_in_order_and_hold_one_kind_each(self, recording: Recording) -> None:
        kinds: dict[tuple[str | None, int], tuple[type, int]] = {}
        for record in decode(Decoder, [recording.body]):
            if isinstance(record, Text | Reasoning | ToolCall):
                kind = type(record), record.index if isinstance(record, ToolCall) else 0
                assert kinds.setdefault((record.branch, record.part), kind) == kind
        for branch in {branch for branch, _ in kinds}:
            parts = [part for owner, part in kinds if owner == branch]
            assert parts == sorted(parts)


@pytest.mark.parametrize("recording", SYNTHETIC, ids=str)
def test_failures(recording: Recording) -> None:
    records = decode(Decoder, [recording.body])
    kinds = {"ok": Completed, "error": Failed, "interrupted": Interrupted}
    terminal = records[-1]
    assert type(terminal) is kinds[recording.expected["outcome"]]
    assert told(records)["text"].get("0", "") == recording.expected["text"]
    if isinstance(terminal, Failed):
        assert terminal.error.retryable is recording.expected.get("retryable", True)
        assert terminal.error.provider_code == recording.expected.get("error_type", terminal.error.provider_code)
    for pieces in splits(recording.body):
        assert decode(Decoder, pieces) == records


class TestTheEnd:
    def test_done_alone_finishes_nothing(self) -> None:
        assert isinstance(run(DONE)[-1], Interrupted)
        records = run(chunk({"content": "Hi"}), DONE)
        assert records[0] == Text(text="Hi")
        assert isinstance(records[-1], Interrupted)

    def test_usage_after_the_finish_reason_still_belongs_to_the_answer(self) -> None:
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        tail = sse.encode(json.dumps({"choices": [], "usage": usage}))
        for end in (DONE, b""):
            records = run(chunk({"content": "Hi"}, "stop"), tail, end)
            assert records[1:] == [
                Usage(input_tokens=3, output_tokens=2, raw=usage),
                Completed("stop", raw_stop_reason="stop"),
            ]

    def test_every_choice_that_was_seen_must_be_finished(self) -> None:
        half = chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk(finish="stop")
        assert isinstance(run(*half, DONE)[-1], Interrupted)
        records = run(*half, chunk(finish="length", index=1), DONE)
        assert records == [
            Text(text="a"),
            Text(text="b", branch="1"),
            Unknown(
                {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]}, protocol="openai_chat", branch="1"
            ),
            Completed("stop", raw_stop_reason="stop"),
        ]
        late = chunk({"content": "a"}), chunk(finish="stop"), chunk({"content": "b"}, index=1)
        assert isinstance(run(*late, DONE)[-1], Interrupted)

    @pytest.mark.parametrize(
        ("word", "reason"),
        [
            ("stop", "stop"),
            ("length", "length"),
            ("tool_calls", "tool_calls"),
            ("function_call", "tool_calls"),
            ("content_filter", "content_filter"),
            ("model_length", "length"),
            ("STOP", "stop"),
            ("insufficient_system_resource", "other"),
        ],
    )
    def test_finish_reasons(self, word: str, reason: Any) -> None:
        assert run(chunk({"content": "x"}), chunk(finish=word), DONE)[-1] == Completed(reason, raw_stop_reason=word)

    def test_a_refusal_is_no_success_whatever_its_finish_reason(self) -> None:
        records = run(chunk({"refusal": "I can"}), chunk({"refusal": "not."}), END)
        assert records == [
            Refusal(text="I can"),
            Refusal(text="not."),
            Completed("content_filter", raw_stop_reason="stop"),
        ]

    def test_the_stop_string_that_matched_is_told(self) -> None:
        choice = {"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}
        frame = sse.encode(json.dumps({"choices": [choice]}))
        assert run(frame, DONE) == [Completed("stop", raw_stop_reason="stop", stop_sequence="END")]

    def test_nothing_after_the_outcome_counts(self) -> None:
        assert run(END, chunk({"content": "late"})) == [Completed("stop", raw_stop_reason="stop")]


class TestErrors:
    def failure(self, *frames: bytes) -> ErrorInfo:
        terminal = run(*frames)[-1]
        assert isinstance(terminal, Failed)
        return terminal.error

    def test_an_error_of_a_choice(self) -> None:
        choice = {
            "index": 0,
            "delta": {"content": "x"},
            "finish_reason": "error",
            "error": {"code": 429, "message": "slow"},
        }
        records = run(sse.encode(json.dumps({"choices": [choice]})), DONE)
        assert records[0] == Text(text="x")
        assert isinstance(records[-1], Failed)
        assert (records[-1].error.code, records[-1].error.status) == ("rate_limit_error", 429)

    def test_finish_reason_error_without_an_error(self) -> None:
        assert self.failure(chunk({"content": "x"}), chunk(finish="error"), DONE).code == "server_error"

    @pytest.mark.parametrize(
        ("payload", "name", "code"),
        [
            (
                {"error": {"message": "m", "type": "invalid_request_error", "code": "invalid_api_key"}},
                None,
                "authentication_error",
            ),
            ({"error": "overloaded, sorry", "error_type": "overloaded"}, None, "overloaded_error"),
            ({"object": "error", "message": "m", "code": 400}, None, "invalid_request_error"),
            ({"message": "m", "type": "rate_limit_error"}, "error", "rate_limit_error"),
            ({"choices": [], "x_groq": {"id": "r", "error": "over_capacity"}}, None, "server_error"),
            ({"error": {"message": "x", "type": "interrupted", "code": "interrupted"}}, None, "interrupted"),
        ],
    )
    def test_shapes(self, payload: dict[str, Any], name: str | None, code: str) -> None:
        assert self.failure(chunk({"content": "x"}), sse.encode(json.dumps(payload), event=name)).code == code

    def test_null_errors_are_none(self) -> None:
        assert isinstance(run(chunk({"content": "x"}, error=None), END)[-1], Completed)

    def test_a_garbled_event_is_a_failure(self) -> None:
        assert self.failure(chunk({"content": "x"}), b"data: {\n\n", END).code == "protocol_error"

    def test_a_line_that_is_too_long_keeps_what_came_before(self) -> None:
        body = chunk({"content": "x"}) + b"data: " + b"y" * 2000
        records = decode(lambda: Decoder(limit=1000), [body])
        assert records[0] == Text(text="x")
        assert isinstance(records[-1], Failed)
        assert records[-1].error.code == "response_too_large"
        assert decode(lambda: Decoder(limit=1000), [body[i : i + 1] for i in range(len(body))]) == records


class TestWholeAnswers:
    ANSWER: ClassVar[dict[str, Any]] = {
        "id": "c1",
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hi",
                    "reasoning_content": "hm",
                    "refusal": None,
                    "annotations": [],
                    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }

    def test_the_same_records_as_a_stream(self) -> None:
        body = json.dumps(self.ANSWER, indent=1).encode()
        records = decode(Decoder, [body])
        assert records == [
            Reasoning(text="hm"),
            Text(text="Hi", part=1),
            ToolCall(index=0, id="a", name="f", arguments="{}", part=2),
            Usage(input_tokens=1, output_tokens=2, raw=self.ANSWER["usage"]),
            Completed("tool_calls", raw_stop_reason="tool_calls"),
        ]
        for spelling in (body, b"\xef\xbb\xbf" + body, b"\n \n" + body):
            for pieces in splits(spelling):
                assert decode(Decoder, pieces) == records

    def test_a_cut_or_unfinished_one_is_no_success(self) -> None:
        body = json.dumps(self.ANSWER).encode()
        assert isinstance(decode(Decoder, [body[:-5]])[-1], Failed)
        unfinished = json.dumps({"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": None}]})
        records = decode(Decoder, [unfinished.encode()])
        assert records[0] == Text(text="Hi")
        assert isinstance(records[-1], Interrupted)

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b'{"error": {"message": "no", "code": "invalid_api_key"}}', "authentication_error"),
            (b'{"detail": "Not Found"}', "server_error"),
            (b'{"object": "error", "message": "m", "code": 404}', "not_found_error"),
            (b'{"a": 1}', "protocol_error"),
            (b"[1]", "protocol_error"),
            (b"<html>no</html>", "protocol_error"),
            (b"", "protocol_error"),
        ],
    )
    def test_what_is_no_answer(self, body: bytes, code: str) -> None:
        terminal = decode(Decoder, [body])[-1]
        assert isinstance(terminal, Failed)
        assert terminal.error.code == code


KEYS = st.sampled_from(
    [
        "choices",
        "delta",
        "message",
        "content",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "index",
        "finish_reason",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "id",
        "type",
        "text",
        "thinking",
        "usage",
        "error",
        "code",
        "x_groq",
        "citations",
        "search_results",
        "url",
        "annotations",
        "url_citation",
        "refusal",
        "function_call",
        "logprobs",
        "summary",
        "data",
        "signature",
        "custom",
        "input",
        "prompt_tokens",
        "completion_tokens",
        "object",
    ]
)
WORDS = st.sampled_from(
    ["text", "thinking", "reasoning.text", "reasoning.encrypted", "reasoning.summary", "error", "stop", "custom"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)
DELTAS = st.dictionaries(KEYS, VALUES, max_size=4)
CHOICES = st.fixed_dictionaries(
    {"index": st.sampled_from([0, 0, 1, "2", None]), "delta": DELTAS}, optional={"finish_reason": WORDS}
)
CHUNKS = st.fixed_dictionaries({"choices": st.lists(CHOICES, max_size=2)}) | st.dictionaries(KEYS, VALUES, max_size=5)
FRAMES = (
    CHUNKS.map(lambda value: sse.encode(json.dumps(value)))
    | st.binary(max_size=20)
    | st.just(DONE)
    | st.just(chunk({"content": "x"}))
)


@given(st.lists(FRAMES, max_size=6).map(b"".join), st.integers(1, 50))
def test_whatever_comes_there_is_one_outcome_and_it_is_last(body: bytes, size: int) -> None:
    records = decode(Decoder, [body[i : i + size] for i in range(0, len(body), size)])
    assert sum(isinstance(record, TERMINALS) for record in records) == 1
    assert isinstance(records[-1], TERMINALS)
    assert all(record.text for record in records if isinstance(record, Text | Refusal))
    msgspec.json.encode(records)


@given(VALUES)
def test_any_json_in_place_of_a_stream(value: Any) -> None:
    records = decode(Decoder, [json.dumps(value).encode()])
    assert sum(isinstance(record, TERMINALS) for record in records) == 1
    assert isinstance(records[-1], TERMINALS)


@given(st.lists(CHUNKS, max_size=5))
def test_no_shape_of_a_chunk_is_fatal(chunks: list[Any]) -> None:
    """Odd types inside a chunk are carried or skipped; they do not end the answer."""
    for value in chunks:
        value.pop("error", None)
    terminal = run(*(sse.encode(json.dumps(value)) for value in chunks))[-1]
    if isinstance(terminal, Failed):
        assert "unknown shape" not in terminal.error.message


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400", "-1e400", "9" * 400])
def test_a_number_that_is_none_does_not_end_the_answer(number: str) -> None:
    """Python's servers write a logprob of minus infinity so; JSON has no such thing."""
    choice = '{"index":0,"logprobs":{"content":[{"logprob":' + number + '}]},"delta":{"content":"NaN 1e400"}}'
    event = ('data: {"choices":[' + choice + "]}\n\n").encode()
    records = decode(Decoder, [event, chunk(finish="stop"), DONE])
    assert [record.text for record in records if isinstance(record, Text)] == ["NaN 1e400"]
    assert isinstance(records[-1], Completed)
    msgspec.json.encode(records)


def test_what_is_broken_besides_such_a_number_is_broken() -> None:
    for broken in (b'data: {"choices": NaN\n\n', b'data: {"choices": [NaN}\n\n', b"data: NaN\n\n"):
        (end,) = decode(Decoder, [broken])
        assert isinstance(end, Failed) and end.error.code == "protocol_error"
