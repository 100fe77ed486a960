"""The Responses API, read: recorded answers, however the network delivers them."""

from __future__ import annotations

import itertools
import json

import pytest

from multi_agent_scheduler.records import (
    TERMINALS,
    Citation,
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
    is_content,
)
from multi_agent_scheduler.wire.openai_responses import Decoder
from tests.wire.openai_responses_answers import (
    calls_of,
    read,
    said,
    stream,
    text_delta,
)
from tests.wire.replay import Recording, cuts, decode, recordings, respellings, splits

RECORDINGS = recordings("responses")
SYNTHETIC = {recording.file: recording for recording in recordings("responses", folders=("synthetic",))}
CONTRADICTION = "openai-responses-011.sse"  # its final text is another than its deltas
recorded = pytest.mark.parametrize("recording", RECORDINGS, ids=str)


def test_there_are_recordings_of_every_provider() -> None:
    providers = {recording.provider for recording in RECORDINGS}
    assert providers == {"openai", "azure", "bedrock-mantle", "deepseek", "lmstudio", "openrouter", "xai"}
    assert len(RECORDINGS) >= 35


@recorded
def test_a_recorded_answer_is_read_as_the_official_sdk_reads_it(recording: Recording) -> None:
    decoder = Decoder()
    records = [*decoder.feed(recording.body), *decoder.close()]
    expected = recording.expected
    assert said(records) == expected["text"]
    if recording.file != CONTRADICTION:
        assert said(records) == expected["final_output_text"]
    summaries = [record for record in records if isinstance(record, Reasoning) and record.kind == "summary"]
    assert "".join(record.text for record in summaries) == expected["reasoning_summary"]
    functions = [call for call in calls_of(records) if call.pop("kind") == "function"]
    assert functions == expected["function_calls"]
    (usage,) = (record for record in records if isinstance(record, Usage))
    assert usage.raw == expected["usage"]
    assert usage.input_tokens == expected["usage"]["input_tokens"]
    assert usage.output_tokens == expected["usage"]["output_tokens"]
    assert usage.total_tokens == expected["usage"]["total_tokens"]
    ending = records[-1]
    assert isinstance(ending, Completed)
    if expected["status"] == "incomplete":
        assert (ending.stop_reason, ending.raw_stop_reason) == ("length", "max_output_tokens")
    elif expected["function_calls"]:
        assert (ending.stop_reason, ending.raw_stop_reason) == ("tool_calls", "completed")
    else:
        assert ending.stop_reason in ("stop", "tool_calls")
        assert ending.raw_stop_reason == "completed"
    assert decoder.done
    assert decoder.response_id
    if decoder.model and recording.expected.get("model"):
        assert decoder.model == recording.expected["model"]


@recorded
def test_parts_are_numbered_in_order_and_each_is_of_one_kind(recording: Recording) -> None:
    records = decode(Decoder, [recording.body])
    parts: dict[int, set[str]] = {}
    for record in records:
        part = getattr(record, "part", None)
        if isinstance(part, int):
            parts.setdefault(part, set())
            if is_content(record):
                parts[part].add(type(record).__name__)
    assert list(parts) == list(range(len(parts)))
    assert all(len(kinds) <= 1 for kinds in parts.values())


@recorded
def test_nothing_is_said_that_says_nothing(recording: Recording) -> None:
    for record in decode(Decoder, [recording.body]):
        if isinstance(record, Text | Refusal):
            assert record.text
        elif isinstance(record, Reasoning):
            assert record.text or record.signature or record.id
        elif isinstance(record, ToolCall):
            assert record.name or record.arguments


@recorded
def test_every_split_gives_the_same_records(recording: Recording) -> None:
    whole = decode(Decoder, [recording.body])
    ways = splits(recording.body)
    if len(recording.body) > 12_000:
        ways = itertools.islice(ways, 1, None)  # not byte by byte
    for pieces in ways:
        assert decode(Decoder, pieces) == whole


@recorded
def test_other_line_ends_and_comments_give_the_same_records(recording: Recording) -> None:
    whole = decode(Decoder, [recording.body])
    for body in respellings(recording.body):
        assert decode(Decoder, [body]) == whole


@recorded
def test_a_cut_is_never_a_success_and_keeps_what_came(recording: Recording) -> None:
    whole = decode(Decoder, [recording.body])
    marker = recording.body.rindex(b"event: response." if b"event: response." in recording.body else b"data: {")
    heads = list(cuts(recording.body[:marker]))
    for head in heads[:: max(1, len(heads) // 40)]:
        *kept, ending = decode(Decoder, [head])
        assert isinstance(ending, Interrupted | Failed)
        assert kept == whole[: len(kept)]
        assert not any(isinstance(record, TERMINALS) for record in kept)


def test_a_cut_after_the_first_words_keeps_them() -> None:
    events = (text_delta("Hel"), text_delta("lo"))
    assert read(*events) == [Text(text="Hel"), Text(text="lo"), decode(Decoder, [stream(*events)])[-1]]
    assert isinstance(read(*events)[-1], Interrupted)


def test_the_synthetic_failure_is_a_failure() -> None:
    (failed,) = decode(Decoder, [SYNTHETIC["responses-failed.sse"].body])
    assert isinstance(failed, Failed)
    assert failed.error.code == "server_error"
    assert failed.error.retryable
    assert failed.error.detail == "The model failed to generate a response."


def test_an_incomplete_answer_without_items_keeps_its_text() -> None:
    records = decode(Decoder, [SYNTHETIC["responses-incomplete.sse"].body])
    assert records == [Text(text="Once"), Completed(stop_reason="length", raw_stop_reason="max_output_tokens")]


def recorded_as(file: str) -> list[Record]:
    (recording,) = (one for one in RECORDINGS if one.file == file)
    return decode(Decoder, [recording.body])


def test_hosted_tools_are_carried_whole_with_their_deltas() -> None:
    records = recorded_as("openai-responses-022.sse")
    raws = [record.raw for record in records if isinstance(record, Unknown)]
    added, *deltas, item = raws
    assert {delta["type"] for delta in deltas} == {"response.code_interpreter_call_code.delta"}
    assert added["type"] == "response.output_item.added"
    assert added["item"]["container_id"] == item["container_id"]
    assert item["type"] == "code_interpreter_call"
    assert "".join(delta["delta"] for delta in deltas) == item["code"] != ""
    assert all(delta["item_id"] == item["id"] for delta in deltas)
    assert len({record.part for record in records if isinstance(record, Unknown)}) == 1


@pytest.mark.parametrize(
    ("file", "kinds"),
    [
        ("openai-responses-003.sse", {"response.apply_patch_call_operation_diff.delta", "apply_patch_call"}),
        (
            "openai-responses-011.sse",
            {
                "response.shell_call_command.delta",
                "response.shell_call_output_content.delta",
                "shell_call",
                "shell_call_output",
                "response.output_text.done",  # its final text contradicts its deltas
            },
        ),
        ("openai-responses-031.sse", {"mcp_list_tools", "mcp_approval_request"}),
        ("openai-responses-038.sse", {"web_search_call"}),
        ("openai-responses-039.sse", {"file_search_call"}),
        ("xai-responses-001.sse", {"image_generation_call"}),
    ],
)
def test_what_is_carried_and_what_is_mere_progress(file: str, kinds: set[str]) -> None:
    raws = [record.raw["type"] for record in recorded_as(file) if isinstance(record, Unknown)]
    assert set(raws) - {"response.output_item.added"} == kinds
    streamed = {kind for kind in kinds if kind.endswith(".delta")}
    assert raws.count("response.output_item.added") == len(streamed)


def test_items_that_only_the_final_response_has_are_not_lost() -> None:
    raws = [record.raw for record in recorded_as("openai-responses-040.sse") if isinstance(record, Unknown)]
    assert sorted(raw["server_label"] for raw in raws) == ["deepwiki", "gitmcp", "microsoft_learn"]
    assert all(raw["tools"] for raw in raws)


def test_logprobs_are_carried_once() -> None:
    records = recorded_as("lmstudio-responses-002.sse")
    raws = [record.raw for record in records if isinstance(record, Unknown)]
    assert "".join(raw["logprobs"][0]["token"] for raw in raws) == said(records) != ""
    assert all(set(raw) == {"type", "logprobs"} for raw in raws)


def test_custom_tool_calls_have_free_text() -> None:
    (call,) = calls_of(recorded_as("openai-responses-004.sse"))
    assert call == {
        "call_id": "call_custom_sql_001",
        "name": "write_sql",
        "arguments": "SELECT * FROM users WHERE age > 25",
        "kind": "custom",
    }
    assert recorded_as("openai-responses-004.sse")[-1] == Completed(
        stop_reason="tool_calls", raw_stop_reason="completed"
    )


def test_reasoning_keeps_its_id_and_its_seal() -> None:
    records = [record for record in recorded_as("xai-responses-002.sse") if isinstance(record, Reasoning)]
    assert len({record.id for record in records}) == 1
    assert records[0].id
    assert all(record.kind == "summary" for record in records)
    sealed = [record for record in records if record.signature]
    assert [record.part for record in sealed] == [records[0].part]
    assert sealed == records[-1:]


def test_a_reasoning_item_without_a_word_is_still_known_by_its_id() -> None:
    first = recorded_as("openai-responses-022.sse")[0]
    assert first == Reasoning(id="rs_685d92cb50b8819c82b4c88de74294020971e611825089f6", part=0)
    assert not is_content(first)


def test_annotations_are_citations_once() -> None:
    (citation,) = (record for record in recorded_as("openai-responses-038.sse") if isinstance(record, Citation))
    assert citation.url == "https://www.britannica.com/place/Mount-Columbia?utm_source=openai"
    assert (citation.start, citation.end) == (94, 179)
    assert citation.raw["type"] == "url_citation"


@recorded
def test_the_response_object_as_json_says_what_the_stream_said(recording: Recording) -> None:
    streamed = decode(Decoder, [recording.body])
    final = [line for line in recording.body.replace(b"\r\n", b"\n").split(b"\n") if line.startswith(b"data: {")][-1]
    response = json.loads(final[6:])["response"]
    decoder = Decoder()
    records = [*decoder.feed(json.dumps(response).encode()), *decoder.close()]
    assert said(records) == recording.expected["final_output_text"]
    assert calls_of(records) == calls_of(streamed)
    assert records[-2:] == streamed[-2:]
    assert decoder.response_id == response["id"]
    assert decoder.model == response["model"]
