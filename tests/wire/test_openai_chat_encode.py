"""Serving records as chat completions: back through our own decoder, and through OpenAI's client."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import ErrorInfo, StreamReset
from multi_agent_scheduler.records import (
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
    Text,
    ToolCall,
    ToolResult,
    Unknown,
    Usage,
)
from multi_agent_scheduler.wire import sse
from multi_agent_scheduler.wire.openai_chat import Decoder, Encoder
from tests.wire.replay import Recording, decode, recordings

RECORDINGS = recordings("chat")
COMPLETED = Completed("stop", raw_stop_reason="stop")


def encoder(**options: Any) -> Encoder:
    return Encoder(id="chatcmpl-1", model="m", created=1_700_000_000, **options)


def chunks(records: list[Record], **options: Any) -> list[Any]:
    """The JSON of each event; the last is the string [DONE] if there is one."""
    events = sse.Decoder().feed(encoder(**options).encode(records))
    return [event.data.decode() if event.data == b"[DONE]" else json.loads(event.data) for event in events]


def settled(records: list[Record]) -> list[Record]:
    """The records as this protocol can carry them: usage once and at the end, sources numbered, errors in our words."""
    usages = [record for record in records if isinstance(record, Usage)]
    kept = []
    for record in records[:-1]:
        if isinstance(record, Citation) and isinstance(record.raw, dict):
            record = msgspec.structs.replace(record, raw={k: v for k, v in record.raw.items() if k != "index"})
        if not isinstance(record, Usage):
            kept.append(record)
    terminal = records[-1]
    if isinstance(terminal, Failed | Interrupted):
        terminal = Failed(ErrorInfo(terminal.error.code, "", retryable=terminal.error.retryable))
    return [*kept, *usages[-1:], terminal]


@pytest.mark.parametrize("recording", RECORDINGS, ids=str)
class TestRecordings:
    def test_encoded_and_decoded_again(self, recording: Recording) -> None:
        records = decode(Decoder, [recording.body])
        whole = encoder().encode(records)
        assert settled(decode(Decoder, [whole])) == settled(records)
        one_by_one = encoder()
        assert b"".join(one_by_one.encode([record]) for record in records) == whole

    def test_the_whole_answer_says_the_same(self, recording: Recording) -> None:
        records = decode(Decoder, [recording.body])
        expected, body = recording.expected, encoder().body(records)
        if expected["error"]:
            assert list(body) == ["error"]
            return
        assert (body["id"], body["object"], body["created"], body["model"]) == (
            "chatcmpl-1",
            "chat.completion",
            1_700_000_000,
            "m",
        )
        assert [choice["finish_reason"] for choice in body["choices"]] == list(expected["finish_reason"].values())
        for choice in body["choices"]:
            key, message = str(choice["index"]), choice["message"]
            if recording.file != "mistral-chat-002.sse":
                assert (message["content"] or "") == expected["text"].get(key, "")
                assert message.get("reasoning_content", "") == expected["reasoning"].get(key, "")
            calls = [
                (call["id"], call["function"]["name"], call["function"]["arguments"])
                for call in message.get("tool_calls", ())
            ]
            assert calls == [(c["id"], c["name"], c["arguments"]) for c in expected["tool_calls"].get(key, ())]
        if expected["usage"] is not None:
            assert body["usage"] == expected["usage"]

    def test_the_whole_answer_decodes_to_the_same_content(self, recording: Recording) -> None:
        if recording.expected["error"]:
            return
        records = decode(Decoder, [recording.body])
        again = decode(Decoder, [json.dumps(encoder().body(records)).encode()])
        for kind, field in ((Text, "text"), (Reasoning, "text"), (ToolCall, "arguments"), (ToolCall, "name")):
            for branch in (None, "1"):
                mine, theirs = (
                    "".join(getattr(r, field) for r in some if isinstance(r, kind) and r.branch == branch)
                    for some in (records, again)
                )
                assert mine == theirs
        assert settled(again)[-1] == settled(records)[-1]

    def test_openais_client_reads_the_stream(self, recording: Recording) -> None:
        records = decode(Decoder, [recording.body])
        client = official(encoder().encode(records), "text/event-stream")
        seen: dict[str, str] = {}
        finish, usage = {}, None

        def read() -> None:
            nonlocal usage
            stream = client.chat.completions.create(model="m", messages=[], stream=True)
            for chunk in stream:
                usage = chunk.usage or usage
                for choice in chunk.choices:
                    key = str(choice.index)
                    seen[key] = seen.get(key, "") + (choice.delta.content or "")
                    if choice.finish_reason:
                        finish[key] = choice.finish_reason

        if recording.expected["error"]:
            with pytest.raises(openai.APIError):
                read()
            return
        read()
        assert finish == recording.expected["finish_reason"]
        if recording.file != "mistral-chat-002.sse":
            assert {k: v for k, v in seen.items() if v} == {k: v for k, v in recording.expected["text"].items() if v}
        if recording.expected["usage"] is not None:
            assert usage is not None
            assert usage.model_dump(exclude_unset=True) == recording.expected["usage"]

    def test_openais_helper_adds_the_stream_up(self, recording: Recording) -> None:
        """It is stricter than the plain stream: items of lists need an index."""
        if recording.expected["error"]:
            return
        records = decode(Decoder, [recording.body])
        with official(encoder().encode(records), "text/event-stream").chat.completions.stream(
            model="m", messages=[]
        ) as stream:
            for _ in stream:
                pass
            final = stream.current_completion_snapshot  # get_final_completion() refuses an answer cut at a length
        body = encoder().body(records)
        for mine, theirs in zip(body["choices"], final.choices, strict=True):
            assert theirs.finish_reason == mine["finish_reason"]
            assert (theirs.message.content or "") == (mine["message"]["content"] or "")
            calls = [(c.id, c.function.name, c.function.arguments) for c in theirs.message.tool_calls or ()]
            assert calls == [
                (c["id"], c["function"]["name"], c["function"]["arguments"])
                for c in mine["message"].get("tool_calls", ())
            ]

    def test_openais_client_reads_the_whole_answer(self, recording: Recording) -> None:
        if recording.expected["error"]:
            return
        body = encoder().body(decode(Decoder, [recording.body]))
        client = official(json.dumps(body).encode(), "application/json")
        answer = client.chat.completions.create(model="m", messages=[])
        assert answer.choices[0].finish_reason == recording.expected["finish_reason"]["0"]
        assert answer.choices[0].message.content == body["choices"][0]["message"]["content"]


def official(body: bytes, content_type: str) -> openai.OpenAI:
    """OpenAI's client, to which every request is answered with this body."""

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=body, headers={"content-type": content_type})

    return openai.OpenAI(
        api_key="x", base_url="http://test/v1", http_client=httpx.Client(transport=httpx.MockTransport(answer))
    )


class TestTheBytes:
    def test_a_plain_answer(self) -> None:
        usage = Usage(input_tokens=3, output_tokens=2, cache_read_tokens=1, reasoning_tokens=0)
        records = [CallStarted(call=1, agent="a"), Text(text="Hel"), Text(text="lo"), usage, COMPLETED]
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "m"}

        def choice(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
            return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

        assert chunks(records) == [
            choice({"role": "assistant", "content": "Hel"}),
            choice({"content": "lo"}),
            choice({}, "stop"),
            {
                **head,
                "choices": [],
                "usage": {
                    "prompt_tokens": 3,
                    "completion_tokens": 2,
                    "total_tokens": 5,
                    "prompt_tokens_details": {"cached_tokens": 1},
                    "completion_tokens_details": {"reasoning_tokens": 0},
                },
            },
            "[DONE]",
        ]
        assert len(chunks(records, include_usage=False)) == 4

    def test_names_are_quoted(self) -> None:
        made = Encoder(id='a"\n', model='m"\r\n\ndata: x', created=1).encode([Text(text="\r\n\n\u2028"), COMPLETED])
        events = sse.Decoder().feed(made)
        assert len(events) == 3
        assert json.loads(events[0].data)["model"] == 'm"\r\n\ndata: x'
        assert json.loads(events[0].data)["choices"][0]["delta"]["content"] == "\r\n\n\u2028"

    def test_an_empty_answer(self) -> None:
        assert chunks([COMPLETED])[0]["choices"][0] == {
            "index": 0,
            "delta": {"role": "assistant"},
            "logprobs": None,
            "finish_reason": "stop",
        }
        assert encoder().body([COMPLETED])["choices"][0]["message"] == {
            "role": "assistant",
            "content": None,
            "refusal": None,
        }

    def test_nothing_to_show_is_no_bytes(self) -> None:
        quiet: list[Record] = [
            CallStarted(call=1, agent="a"),
            Unknown({"x": 1}, protocol="anthropic"),
            ToolResult(id="a"),
            Text(text="x", branch="fast"),
            Text(text=""),
            Usage(input_tokens=1),
        ]
        assert encoder().encode(quiet) == b""

    def test_nothing_follows_the_terminal(self) -> None:
        made = encoder()
        made.encode([Text(text="x"), COMPLETED])
        assert made.encode([Text(text="y"), Reasoning(text="z"), COMPLETED]) == b""


class TestEnds:
    @pytest.mark.parametrize(
        ("completed", "word"),
        [
            (Completed("stop_sequence", raw_stop_reason="stop_sequence", stop_sequence="END"), "stop"),
            (Completed("tool_calls", raw_stop_reason="tool_use"), "tool_calls"),
            (Completed("tool_calls", raw_stop_reason="function_call"), "tool_calls"),
            (Completed("length", raw_stop_reason="MAX_TOKENS"), "length"),
            (Completed("content_filter", raw_stop_reason="refusal"), "content_filter"),
            (Completed("other", raw_stop_reason="eh"), "stop"),
        ],
    )
    def test_finish_reasons_are_the_protocols_own(self, completed: Completed, word: str) -> None:
        assert chunks([Text(text="x"), completed])[1]["choices"][0]["finish_reason"] == word

    def test_the_stop_sequence_survives(self) -> None:
        records: list[Record] = [Text(text="x"), Completed("stop", raw_stop_reason="stop", stop_sequence="END")]
        assert decode(Decoder, [encoder().encode(records)]) == records

    @pytest.mark.parametrize(
        ("terminal", "code"),
        [
            (Failed(ErrorInfo("rate_limit_error", "slow down", detail="secret of the provider")), "rate_limit_error"),
            (Interrupted(ErrorInfo("interrupted", "it broke off")), "interrupted"),
            (Cancelled("user"), "cancelled"),
        ],
    )
    def test_a_failure_is_an_error_and_no_done(self, terminal: Record, code: str) -> None:
        made = chunks([Text(text="x"), Usage(input_tokens=1, output_tokens=1), terminal])
        assert made[-1]["error"]["type"] == made[-1]["error"]["code"] == code
        assert made[-1]["error"]["param"] is None
        assert made[-2]["usage"]["total_tokens"] == 2
        assert "secret" not in json.dumps(made)
        assert list(encoder().body([Text(text="x"), terminal])) == ["error"]
        client = official(encoder().encode([Text(text="x"), terminal]), "text/event-stream")
        stream = client.chat.completions.create(model="m", messages=[], stream=True)
        assert next(stream).choices[0].delta.content == "x"
        with pytest.raises(openai.APIError):
            next(stream)

    def test_a_reset_after_content_cannot_be_shown(self) -> None:
        reset = Reset(from_seq=1, reason="retry")
        made = encoder()
        assert made.encode([reset, Unknown({"provider": "x"}, protocol="openai_chat"), reset, Text(text="x")])
        with pytest.raises(StreamReset):
            made.encode([reset])
        with pytest.raises(StreamReset):
            encoder().body([ToolCall(index=0, id="a", name="f"), reset, COMPLETED])

    def test_usage_is_the_sum_of_the_calls(self) -> None:
        usages = [
            Usage(input_tokens=1, output_tokens=1, call=1),
            Usage(input_tokens=3, output_tokens=2, call=1, reasoning_tokens=1),
            Usage(input_tokens=5, output_tokens=7, call=2, cache_read_tokens=0),
        ]
        assert encoder().body([*usages, COMPLETED])["usage"] == {
            "prompt_tokens": 8,
            "completion_tokens": 9,
            "total_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 1},
        }
        assert "usage" not in encoder().body([Usage(input_tokens=1), COMPLETED])


class TestContent:
    def test_calls_of_the_providers_own_tools_are_left_out(self) -> None:
        records: list[Record] = [
            ToolCall(index=0, id="s", name="web_search", arguments="{}", kind="server"),
            ToolCall(index=1, id="a", name="f", arguments="{", part=1),
            ToolCall(index=1, arguments="}", part=1),
            Completed("tool_calls", raw_stop_reason="tool_use"),
        ]
        assert encoder().body(records)["choices"][0]["message"]["tool_calls"] == [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ]
        assert chunks(records)[0]["choices"][0]["delta"]["tool_calls"][0]["index"] == 0

    def test_branches_are_choices(self) -> None:
        records: list[Record] = [Text(text="a"), Text(text="b", branch="1"), Text(text="c", branch="judge"), COMPLETED]
        body = encoder().body(records)
        assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in body["choices"]] == [
            (0, "a", "stop"),
            (1, "b", "stop"),
        ]

    def test_sealed_reasoning_can_be_sent_back(self) -> None:
        records: list[Record] = [
            Reasoning(text="a"),
            Reasoning(text="b"),
            Reasoning(signature="S"),
            Reasoning(redacted="R", part=1),
            Reasoning(text="c", part=2, kind="summary", id="rs_1"),
            Reasoning(text="d", part=2, kind="summary"),
            Text(text="x", part=3),
            COMPLETED,
        ]
        assert decode(Decoder, [encoder().encode(records)]) == records
        message = encoder().body(records)["choices"][0]["message"]
        assert message["reasoning_content"] == "abcd"
        assert message["reasoning_details"] == [
            {"type": "reasoning.text", "signature": "S", "index": 0},
            {"type": "reasoning.encrypted", "data": "R", "index": 1},
            {"type": "reasoning.summary", "summary": "cd", "id": "rs_1", "index": 2},
        ]

    def test_citations_of_other_protocols_become_annotations(self) -> None:
        cited = Citation(
            url="http://a", title="A", text="t", start=1, end=2, raw={"type": "web_search_result_location"}
        )
        delta = chunks([Text(text="x"), cited, cited, COMPLETED])[2]["choices"][0]["delta"]
        assert delta == {
            "annotations": [
                {
                    "type": "url_citation",
                    "index": 1,
                    "url_citation": {"url": "http://a", "title": "A", "start_index": 1, "end_index": 2, "content": "t"},
                }
            ]
        }
        message = encoder().body([Text(text="x"), cited, cited, COMPLETED])["choices"][0]["message"]
        assert [list(note) for note in message["annotations"]] == [["type", "url_citation"]] * 2

    def test_what_a_client_could_not_add_up_is_left_out(self) -> None:
        for delta in ({"content": [{"type": "x"}]}, {"tool_calls": [{"index": 0, "note": 1}]}):
            raw = {"choices": [{"index": 0, "delta": delta}]}
            assert encoder().encode([Unknown(raw, protocol="openai_chat")]) == b""
        for raw in ({"choices": 1}, {"choices": [{"index": 1}]}, {"choices": ["x"]}, [], None):
            assert encoder().encode([Unknown(raw, protocol="openai_chat")]) == b""

    def test_unknown_fields_cannot_forge_the_envelope(self) -> None:
        raw = {"id": "forged", "model": "forged", "error": {"message": "forged"}, "provider": "x"}
        made = chunks([Unknown(raw, protocol="openai_chat")])
        assert made[0]["id"] == "chatcmpl-1"
        assert made[0]["provider"] == "x"
        assert "forged" not in json.dumps(made)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
BRANCHES = st.sampled_from([None, None, "1", "2"])


@st.composite
def answers(draw: st.DrawFn) -> list[Record]:
    """Records as a decoder of this protocol numbers them."""
    parts: dict[tuple[str | None, Any], int] = {}
    calls: dict[str | None, int] = {}
    records: list[Record] = []
    refused = False

    def part(branch: str | None, key: Any) -> int:
        return parts.setdefault((branch, key), sum(owner == branch for owner, _ in parts))

    for _ in range(draw(st.integers(0, 12))):
        branch = draw(BRANCHES)
        match draw(st.sampled_from(["text", "text", "reasoning", "sealed", "refusal", "call", "arguments"])):
            case "text":
                records.append(Text(text=draw(TEXTS), part=part(branch, "text"), branch=branch))
            case "reasoning":
                block = draw(st.integers(0, 2))
                if block and (branch, ("r", block - 1)) not in parts:
                    continue
                signature = draw(st.none() | TEXTS)
                records.append(
                    Reasoning(text=draw(TEXTS), part=part(branch, ("r", block)), signature=signature, branch=branch)
                )
            case "sealed":
                number = sum(owner == branch for owner, _ in parts)
                records.append(Reasoning(redacted=draw(TEXTS), part=part(branch, ("e", number)), branch=branch))
            case "refusal":
                refused = refused or branch is None
                records.append(Refusal(text=draw(TEXTS), part=part(branch, "refusal"), branch=branch))
            case "call":
                index = calls[branch] = calls.get(branch, -1) + 1
                name, kind = draw(TEXTS), draw(st.sampled_from(["function", "custom"]))
                place = part(branch, ("call", index))
                records.append(
                    ToolCall(index=index, id=f"c{index}", name=name, part=place, kind=kind, branch=branch)  # type: ignore[arg-type]
                )
            case "arguments":
                mine = [r for r in records if isinstance(r, ToolCall) and r.branch == branch]
                if mine:
                    call = draw(st.sampled_from(mine))
                    records.append(msgspec.structs.replace(call, id="", name="", arguments=draw(TEXTS)))
    tokens = draw(st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)))
    if tokens:
        raw = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
        records.append(Usage(input_tokens=tokens[0], output_tokens=tokens[1], raw=raw))
    reason = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
    stop = "content_filter" if refused and reason == "stop" else reason
    return [*records, Completed(stop, raw_stop_reason=reason)]  # type: ignore[arg-type]


def without_finish(records: list[Record]) -> list[Record]:
    return [record for record in records if not isinstance(record, Unknown)]


@given(answers(), st.integers(1, 5))
def test_what_the_protocol_can_say_comes_back(records: list[Record], size: int) -> None:
    made = encoder()
    body = b"".join(made.encode(records[i : i + size]) for i in range(0, len(records), size))
    assert without_finish(decode(Decoder, [body])) == records


@given(answers())
def test_the_whole_answer_is_the_stream_added_up(records: list[Record]) -> None:
    """OpenAI's helper over the stream and our own fold agree."""
    with official(encoder().encode(records), "text/event-stream").chat.completions.stream(model="m", messages=[]) as s:
        for _ in s:
            pass
        final = s.current_completion_snapshot
    body = encoder().body(records)
    for mine, theirs in zip(body["choices"], final.choices, strict=True):
        assert theirs.finish_reason == mine["finish_reason"]
        for field in ("content", "refusal", "reasoning_content"):
            assert (getattr(theirs.message, field, None) or "") == (mine["message"].get(field) or "")
        assert len(theirs.message.tool_calls or ()) == len(mine["message"].get("tool_calls", ()))


ANY_RECORD = st.one_of(
    st.builds(Text, text=st.text(max_size=3), branch=st.sampled_from([None, "1", "x", "01", ""])),
    st.builds(Reasoning, text=st.text(max_size=3), part=st.integers(0, 2), signature=st.none() | st.just("s")),
    st.builds(ToolCall, index=st.integers(0, 3), name=st.text(max_size=2), kind=st.sampled_from(["server", "custom"])),
    st.builds(Citation, raw=st.none() | st.just("http://a") | st.just({"url": "u"}) | st.just({"url_citation": {}})),
    st.builds(
        Unknown,
        raw=st.recursive(
            st.none() | st.integers() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(
                        ["choices", "index", "delta", "reasoning_details", "content", "x", "finish_reason"]
                    ),
                    inner,
                )
            ),
        )
        | st.just({"choices": [{"index": 0, "delta": {"reasoning_details": [{"index": 0}]}}]}),
        protocol=st.sampled_from(["openai_chat", "gemini"]),
        part=st.none() | st.integers(0, 2),
    ),
    st.builds(Usage, input_tokens=st.none() | st.integers(0, 5), output_tokens=st.none() | st.integers(0, 5)),
    st.just(COMPLETED),
    st.just(Cancelled()),
)


@given(st.lists(ANY_RECORD, max_size=8))
def test_any_records_can_be_shown(records: list[Record]) -> None:
    """Every event is JSON, and what is shown is a chat completion to our decoder."""
    made = encoder().encode(records)
    for event in sse.Decoder().feed(made):
        assert event.data == b"[DONE]" or isinstance(json.loads(event.data), dict)
    again = decode(Decoder, [made])
    if COMPLETED in records and Cancelled() not in records:
        assert isinstance(again[-1], Completed)
    json.dumps(encoder().body(records))
