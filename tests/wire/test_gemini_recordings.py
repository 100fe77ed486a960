"""Recorded answers of Gemini: what they say, and every way they can arrive."""

from __future__ import annotations

import json

import pytest

from multi_agent_scheduler.records import (
    TERMINALS,
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
from tests.wire.gemini_answers import calls_of, expected_calls, reasoning_of, text_of
from tests.wire.replay import Recording, cuts, decode, recordings, respellings, splits

RECORDINGS = recordings("generatecontent")
SYNTHETIC = {one.file: one for one in recordings("generatecontent", folders=("synthetic",))}
every = pytest.mark.parametrize("recording", RECORDINGS, ids=str)


def settled(records: list[Record]) -> list[Record]:
    """The records with the last of all usages at the end: how often it is told depends on the reads."""
    usages = [record for record in records if isinstance(record, Usage)]
    return [*(record for record in records if not isinstance(record, Usage)), *usages[-1:]]


def test_there_are_recordings() -> None:
    assert len(RECORDINGS) == 14
    assert len(SYNTHETIC) == 2


@every
def test_a_recording_says_what_was_recorded(recording: Recording) -> None:
    records = decode(Decoder, [recording.body])
    assert text_of(records) == recording.expected["text"]
    assert reasoning_of(records) == recording.expected["thought"]
    assert calls_of(records) == expected_calls(recording)
    assert [record for record in records if isinstance(record, Usage)][-1].raw == recording.expected["usage"]
    assert records[-1] == Completed(
        "tool_calls" if expected_calls(recording) else "stop", raw_stop_reason=recording.expected["finish_reason"]
    )
    assert not any(isinstance(record, TERMINALS) for record in records[:-1])


@every
def test_nothing_of_a_recording_is_lost(recording: Recording) -> None:
    """Every signature, every part of Google's own tools and every piece of metadata is in some record."""
    records = decode(Decoder, [recording.body])
    signatures = [r.signature for r in records if isinstance(r, Reasoning | ToolCall) and r.signature]
    unknown = [r.raw for r in records if isinstance(r, Unknown)]
    for line in recording.body.splitlines():
        payload = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: ") else {}
        for candidate in payload.get("candidates", ()):
            for part in candidate["content"].get("parts", ()):
                if part.keys() & {"executableCode", "codeExecutionResult", "toolCall", "toolResponse"}:
                    assert part in unknown
                elif "thoughtSignature" in part:
                    assert part["thoughtSignature"] in signatures
            for key in ("groundingMetadata", "urlContextMetadata"):
                assert not candidate.get(key) or {"candidates": [{key: candidate[key]}]} in unknown


@every
def test_every_split_gives_the_same_records(recording: Recording) -> None:
    whole = settled(decode(Decoder, [recording.body]))
    for pieces in splits(recording.body):
        if len(pieces) < 8000:  # the largest body byte by byte would take a second to say nothing new
            assert settled(decode(Decoder, pieces)) == whole


@every
def test_line_ends_and_comments_change_nothing(recording: Recording) -> None:
    whole = decode(Decoder, [recording.body])
    assert sum(isinstance(record, Usage) for record in whole) <= 1  # of one read the last is told
    for body in respellings(recording.body):
        assert decode(Decoder, [body]) == whole


@every
def test_a_cut_before_the_finish_is_never_a_success(recording: Recording) -> None:
    whole = decode(Decoder, [recording.body])
    finish = recording.body.rindex(b'"finishReason"')
    for body in cuts(recording.body):
        if len(body) > finish:
            continue
        *kept, outcome = decode(Decoder, [body])
        assert isinstance(outcome, Interrupted | Failed)
        kept = [record for record in kept if not isinstance(record, Usage)]
        assert kept == [record for record in whole if not isinstance(record, Usage)][: len(kept)]


@every
def test_the_name_of_the_answer_and_of_the_model_are_known(recording: Recording) -> None:
    decoder = Decoder()
    decoder.feed(recording.body)
    assert decoder.response_id
    assert decoder.model
    assert decoder.model.startswith("gemini")


def test_an_error_in_mid_stream_fails_and_keeps_what_came() -> None:
    text, outcome = decode(Decoder, [SYNTHETIC["gemini-error-midstream.sse"].body])
    assert text == Text(text="Hi")
    assert isinstance(outcome, Failed)
    assert (outcome.error.code, outcome.error.status, outcome.error.provider_code) == (
        "overloaded_error",
        503,
        "UNAVAILABLE",
    )
    assert outcome.error.retryable


def test_a_blocked_prompt_is_completed_but_no_success() -> None:
    usage, outcome = decode(Decoder, [SYNTHETIC["gemini-prompt-blocked.sse"].body])
    assert isinstance(usage, Usage)
    assert (usage.input_tokens, usage.output_tokens) == (4, 0)
    assert outcome == Completed("content_filter", raw_stop_reason="SAFETY")


@every
def test_a_json_list_of_the_events_gives_the_same(recording: Recording) -> None:
    """What streamGenerateContent sends without alt=sse."""
    whole = decode(Decoder, [recording.body])
    payloads = [line.removeprefix(b"data: ") for line in recording.body.splitlines() if line.startswith(b"data: ")]
    assert decode(Decoder, [b"[" + b",\r\n".join(payloads) + b"]"]) == whole
