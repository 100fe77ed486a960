"""What the deltas of chat completions say, in the spellings of all the providers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from multi_agent_scheduler.records import Citation, Completed, Reasoning, Record, Text, ToolCall, Unknown, Usage
from multi_agent_scheduler.wire import sse
from tests.wire.chat_frames import END, chunk, run


class TestToolCalls:
    def calls(self, *deltas: Any) -> list[Record]:
        return run(*(chunk({"tool_calls": delta}) for delta in deltas), END)[:-1]

    def test_fragments_are_told_by_index(self) -> None:
        assert self.calls(
            [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}],
            [{"index": 0, "function": {"arguments": '{"x"'}}],
            [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}],
            [{"index": 0, "function": {"arguments": ":1}"}}, {"index": 1, "function": {"arguments": "{}"}}],
        ) == [
            ToolCall(index=0, id="a", name="f"),
            ToolCall(index=0, arguments='{"x"'),
            ToolCall(index=1, id="b", name="g", part=1),
            ToolCall(index=0, arguments=":1}"),
            ToolCall(index=1, arguments="{}", part=1),
        ]

    def test_calls_without_an_index(self) -> None:
        whole = [{"id": i, "function": {"name": i, "arguments": "{}"}} for i in ("a", "b")]
        want = [ToolCall(index=n, id=i, name=i, arguments="{}", part=n) for n, i in enumerate(("a", "b"))]
        assert self.calls(whole) == want
        assert self.calls(whole[:1], whole[1:]) == want
        assert self.calls(
            [{"id": "a", "function": {"name": "f", "arguments": "{"}}], [{"function": {"name": "", "arguments": "}"}}]
        ) == [ToolCall(index=0, id="a", name="f", arguments="{"), ToolCall(index=0, arguments="}")]

    def test_another_id_and_name_under_the_same_index_is_another_call(self) -> None:
        one, two = ({"index": 0, "id": i, "function": {"name": "f", "arguments": "{}"}} for i in ("a", "b"))
        assert [call.index for call in self.calls([one], [two]) if isinstance(call, ToolCall)] == [0, 1]

    def test_a_repeated_id_and_name_is_told_once(self) -> None:
        again = [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "x"}}]
        assert self.calls(again, again) == [
            ToolCall(index=0, id="a", name="f", arguments="x"),
            ToolCall(index=0, arguments="x"),
        ]

    def test_calls_without_name_or_id_at_first(self) -> None:
        assert self.calls([{"index": 0, "id": "a", "function": {}}], [{"index": 0, "function": {"name": "f"}}]) == [
            ToolCall(index=0, id="a"),
            ToolCall(index=0, name="f"),
        ]

    def test_arguments_as_an_object(self) -> None:
        assert self.calls([{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}]) == [
            ToolCall(index=0, id="a", name="f", arguments='{"x":1}')
        ]

    def test_custom_tools(self) -> None:
        assert self.calls(
            [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "sql", "input": "sel"}}],
            [{"index": 0, "custom": {"input": "ect"}}],
        ) == [
            ToolCall(index=0, id="a", name="sql", arguments="sel", kind="custom"),
            ToolCall(index=0, arguments="ect", kind="custom"),
        ]

    def test_the_older_function_call(self) -> None:
        records = run(
            chunk({"function_call": {"name": "f", "arguments": ""}}),
            chunk({"function_call": {"arguments": "{}"}}),
            chunk(finish="function_call"),
        )
        assert records == [
            ToolCall(index=0, name="f"),
            ToolCall(index=0, arguments="{}"),
            Completed("tool_calls", raw_stop_reason="function_call"),
        ]

    def test_geminis_seal(self) -> None:
        extra = {"google": {"thought_signature": "S"}}
        assert self.calls([{"index": 0, "id": "a", "function": {"name": "f"}, "extra_content": extra}]) == [
            ToolCall(index=0, id="a", name="f", signature="S")
        ]

    def test_unknown_tools_and_fields_are_kept(self) -> None:
        strange = {"index": 0, "type": "web_search", "web_search": {"query": "x"}}
        (record,) = self.calls([strange])
        assert isinstance(record, Unknown)
        assert record.raw["choices"][0]["delta"]["tool_calls"] == [strange]
        records = self.calls([{"index": 0, "id": "a", "function": {"name": "f"}, "note": "n"}])
        assert isinstance(records[1], Unknown)
        assert records[1].raw["choices"][0]["delta"]["tool_calls"] == [{"index": 0, "note": "n"}]


class TestReasoning:
    def said(self, *deltas: Any) -> list[Record]:
        return run(*(chunk(delta) for delta in deltas), END)[:-1]

    def test_its_own_part_before_the_text(self) -> None:
        for field in ("reasoning_content", "reasoning"):
            assert self.said({field: "hm", "content": None}, {field: "so"}, {"content": "A"}) == [
                Reasoning(text="hm"),
                Reasoning(text="so"),
                Text(text="A", part=1),
            ]

    def test_the_same_under_two_names_is_told_once(self) -> None:
        details = [{"type": "reasoning.text", "text": "hm", "index": 0}]
        for delta in (
            {"reasoning": "hm", "reasoning_content": "hm"},
            {"reasoning": "hm", "reasoning_details": details},
        ):
            assert self.said(delta) == [Reasoning(text="hm")]

    def test_what_differs_is_not_lost(self) -> None:
        records = self.said({"reasoning": "other", "reasoning_content": "hm"})
        assert records[0] == Reasoning(text="hm")
        assert isinstance(records[1], Unknown)
        assert records[1].raw["choices"][0]["delta"] == {"reasoning": "other"}

    def test_seals_ids_and_blocks_of_reasoning_details(self) -> None:
        assert self.said(
            {"reasoning": "a", "reasoning_details": [{"type": "reasoning.text", "text": "a", "index": 0}]},
            {"reasoning_details": [{"type": "reasoning.text", "signature": "S", "index": 0}]},
            {
                "reasoning": "b",
                "reasoning_details": [{"type": "reasoning.summary", "summary": "b", "id": "r", "index": 1}],
            },
            {
                "reasoning": "c",
                "reasoning_details": [{"type": "reasoning.summary", "summary": "c", "id": "r", "index": 1}],
            },
            {"reasoning": "d"},
            {"reasoning_details": [{"type": "reasoning.encrypted", "data": "E", "id": "r", "index": 1}]},
        ) == [
            Reasoning(text="a"),
            Reasoning(signature="S"),
            Reasoning(text="b", part=1, kind="summary", id="r"),
            Reasoning(text="c", part=1, kind="summary"),
            Reasoning(text="d", part=1),
            Reasoning(redacted="E", id="r", part=2),
        ]

    def test_thinking_in_a_list_of_contents(self) -> None:
        thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "signature": "S", "closed": True}
        assert self.said({"content": [thinking, {"type": "text", "text": "A"}, "B"]}) == [
            Reasoning(text="hm", signature="S"),
            Text(text="A", part=1),
            Text(text="B", part=1),
        ]


class TestNothingIsLost:
    @pytest.mark.parametrize(
        "delta",
        [
            {"images": [{"type": "image_url", "image_url": {"url": "data:,x"}}]},
            {"audio": {"id": "a", "data": "AAAA"}},
            {"content": [{"type": "hologram", "size": 3}]},
            {"content": 5},
            {"annotations": [{"type": "file_citation", "file_citation": {"file_id": "f"}}]},
            {"reasoning_details": [{"type": "reasoning.song", "notes": "abc"}]},
            {"reasoning": {"steps": []}},
            {"refusal": {"why": "x"}},
            {"tool_calls": ["f()"]},
            {"thoughts": "hm"},
        ],
    )
    def test_unknown_things_in_a_delta(self, delta: dict[str, Any]) -> None:
        wanted = Unknown({"choices": [{"index": 0, "delta": delta}]}, protocol="openai_chat")
        assert run(chunk({"content": "x"}), chunk(delta), chunk(delta), END)[1:-1] == [wanted, wanted]
        assert run(chunk({"content": "x", **delta}) if "content" not in delta else chunk(delta), END).count(wanted) == 1

    def test_logprobs(self) -> None:
        choice = {
            "index": 0,
            "delta": {"content": "x"},
            "logprobs": {"content": [{"token": "x"}]},
            "finish_reason": None,
        }
        records = run(chunk({"content": "a"}), sse.encode(json.dumps({"choices": [choice]})), END)
        assert (
            Unknown({"choices": [{"index": 0, "logprobs": {"content": [{"token": "x"}]}}]}, protocol="openai_chat")
            in records
        )

    def test_what_is_repeated_in_every_chunk_is_told_when_it_changes(self) -> None:
        frames = [chunk({"content": "a"}, service_tier=tier, model="m") for tier in ("x", "x", "y", None, "y")]
        unknown = [r.raw for r in run(*frames, END) if isinstance(r, Unknown)]
        assert unknown == [{"service_tier": "x"}, {"service_tier": "y"}]
        filters = [{"hate": {"filtered": f}} for f in (False, False, True)]
        frames = [
            sse.encode(json.dumps({"choices": [{"index": 0, "delta": {"content": "a"}, "content_filter_results": f}]}))
            for f in filters
        ]
        unknown = [r.raw["choices"][0] for r in run(*frames, END) if isinstance(r, Unknown)]
        assert unknown == [{"index": 0, "content_filter_results": f} for f in (filters[0], filters[2])]

    def test_envelope_and_empty_deltas_are_silence(self) -> None:
        noise = {"object": "chat.completion.chunk", "created": 1, "system_fingerprint": None, "obfuscation": "xyz"}
        delta = {"role": "assistant", "content": "", "refusal": None, "tool_calls": None, "reasoning_details": []}
        assert run(chunk(delta, usage=None, **noise), b": ping\n\n", END) == [Completed("stop", raw_stop_reason="stop")]


class TestSources:
    def test_citations_and_search_results_are_told_once(self) -> None:
        result = {"title": "B", "url": "http://b", "snippet": "s"}
        first = chunk({"content": "x"}, citations=["http://a", "http://b"], search_results=[result])
        records = [r for r in run(first, first, END) if isinstance(r, Citation)]
        assert records == [
            Citation(url="http://b", title="B", text="s", raw=result),
            Citation(url="http://a", raw="http://a"),
        ]

    def test_annotations(self) -> None:
        note = {
            "type": "url_citation",
            "url_citation": {"url": "http://a", "title": "A", "start_index": 1, "end_index": 5},
        }
        records = run(chunk({"content": "x"}), chunk({"annotations": [note]}), END)
        assert records[1] == Citation(url="http://a", title="A", start=1, end=5, raw=note)


class TestUsage:
    def usage(self, raw: Any) -> Usage:
        (usage,) = [record for record in run(chunk({"content": "x"}, usage=raw), END) if isinstance(record, Usage)]
        return usage

    def test_openai(self) -> None:
        raw = {
            "prompt_tokens": 10,
            "completion_tokens": 7,
            "total_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 5},
        }
        assert self.usage(raw) == Usage(
            input_tokens=10, output_tokens=7, reasoning_tokens=5, cache_read_tokens=4, cache_write_tokens=2, raw=raw
        )

    def test_xai_counts_reasoning_apart(self) -> None:
        raw = {
            "prompt_tokens": 12,
            "completion_tokens": 2,
            "total_tokens": 354,
            "completion_tokens_details": {"reasoning_tokens": 340},
        }
        assert self.usage(raw) == Usage(input_tokens=12, output_tokens=342, reasoning_tokens=340, raw=raw)

    def test_numbers_as_strings_floats_and_nonsense(self) -> None:
        raw = {"prompt_tokens": "12", "completion_tokens": 3.0, "total_tokens": None, "prompt_tokens_details": None}
        assert self.usage(raw) == Usage(input_tokens=12, output_tokens=3, raw=raw)
        raw = {"prompt_tokens": -1, "completion_tokens": True}
        assert self.usage(raw) == Usage(raw=raw)

    def test_the_same_usage_twice_is_told_once(self) -> None:
        raw = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        records = run(
            chunk({"content": "x"}, usage=raw, x_groq={"usage": raw}), chunk({"content": "y"}, usage=raw), END
        )
        assert [type(record) for record in records] == [Text, Usage, Text, Completed]
