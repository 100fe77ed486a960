"""The arguments of tool calls as they arrive."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from multi_agent_scheduler import MultiAgentScheduler, Task, Tool
from multi_agent_scheduler.errors import ErrorInfo, InvalidJSON, ServerError, agent_error
from multi_agent_scheduler.records import Completed, Reset, Text, ToolCall
from multi_agent_scheduler.schema import Misfit
from multi_agent_scheduler.testing import ScriptedAgent
from multi_agent_scheduler.views.tool_calls import ToolCallsView
from multi_agent_scheduler.wire.partial_json import apply

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}


def start(index: int = 0, arguments: str = "", **fields: Any) -> ToolCall:
    return ToolCall(index, id=f"call-{index}", name="weather", arguments=arguments, **fields)


def test_two_calls_at_once() -> None:
    view = ToolCallsView({"weather": WEATHER})
    (first,) = view.feed([Text("One moment."), start(0, '{"ci')])
    assert (first.index, first.id, first.name, first.value) == (0, "call-0", "weather", {})
    both = view.feed([ToolCall(0, arguments='ty": "Pa'), start(1, '{"days": 3'), ToolCall(0, arguments="ri")])
    assert [(call.index, call.changes) for call in both] == [(0, [(("city",), "Pari")]), (1, [((), {})])]
    both = view.feed([ToolCall(0, arguments='s"}'), ToolCall(1, arguments="}")])
    assert [call.completed for call in both] == [[("city",), ()], [("days",), ()]]
    assert [call.value for call in both] == [{"city": "Paris"}, {"days": 3}]
    assert view.close() == []
    assert "name='weather'" in repr(both[0])


def test_what_is_wrong_with_arguments() -> None:
    view = ToolCallsView({"weather": WEATHER})
    (call,) = view.feed([start(0, '{"city": "Paris", "days": "three", ')])
    assert isinstance(call.problem, Misfit)
    assert str(call.problem) == 'days: expected a whole number, but "three" arrived'
    assert call.value == {"city": "Paris"}
    (call,) = view.feed([ToolCall(0, arguments='"more": 1}')])
    assert call.changes == []
    (call,) = view.feed([start(1, 'Sure: {"city"')])
    assert isinstance(call.problem, InvalidJSON)
    (call,) = view.feed([start(2, '{"city": "Par')])
    (call,) = view.close()
    assert (call.index, str(call.problem)) == (2, "not a whole JSON document: it ends inside a string")


def test_a_call_without_arguments_has_none() -> None:
    view = ToolCallsView()
    (call,) = view.feed([start()])
    assert call.value is UNSET
    (call,) = view.close()
    assert (call.value, call.completed) == ({}, [()])


def test_free_text_and_branches_are_left_out() -> None:
    assert ToolCallsView().feed([start(kind="custom", arguments="x"), start(branch="judge", arguments="{}")]) == []


def test_a_reset_begins_them_anew() -> None:
    view = ToolCallsView()
    view.feed([start(0, '{"a": 1'), start(1, '{"b": 1')])
    gone, again = view.feed([Reset(1, "it broke"), start(0, '{"a": 2, ')])
    assert (gone.index, gone.restarted, gone.value) == (1, "it broke", UNSET)
    assert (again.index, again.restarted, again.value) == (0, "it broke", {"a": 2})


class TestScheduler:
    async def test_the_arguments_as_they_grow(self) -> None:
        script = [start(0, '{"city": '), ToolCall(0, arguments='"Paris"}'), Completed("tool_calls")]
        task = Task("t", "Weather?", options={"tools": [Tool("weather", parameters=WEATHER)]})
        async with MultiAgentScheduler({"a": ScriptedAgent(*script)}) as scheduler:
            document: Any = UNSET
            async for call in scheduler.stream_tool_calls(task):
                document = apply(document, call.changes)
            assert document == call.value == {"city": "Paris"}

    async def test_a_failure_is_raised(self) -> None:
        script = [start(0, '{"city": '), agent_error(ErrorInfo("server_error", "it broke"))]
        async with MultiAgentScheduler({"a": ScriptedAgent(*script)}) as scheduler:
            calls = scheduler.stream_tool_calls(Task("t", "Weather?"))
            assert (await anext(calls)).value == {}
            with pytest.raises(ServerError, match="it broke"):
                await anext(calls)
