"""A task survives being kept: what is read back runs the same."""

from __future__ import annotations

import pytest

from multi_agent_scheduler.errors import InvalidRequest, StoreError
from multi_agent_scheduler.request import (
    ImagePart,
    Message,
    ReasoningPart,
    RefusalPart,
    Request,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
    UnknownPart,
    build,
)
from multi_agent_scheduler.submission import Submission, pack, unpack
from multi_agent_scheduler.task import Budget, Task, Template, Timeouts


def test_every_field_comes_back() -> None:
    task = Task(
        "t",
        Template("from ${a}"),
        "creative",
        agent="claude",
        depends_on=["a", "b"],
        priority=3,
        on_failure="run",
        timeouts=Timeouts(total=5, queue=float("inf")),
        budget=Budget(tokens=5),
        schema={"type": "object"},
        options={"max_tokens": 5, "stop": ["x"]},
        metadata={"user": {"id": 7}},
    )
    submitted = Submission(task, "claude", 4, Budget(cost=1.5))
    assert unpack(pack(submitted)) == submitted


def test_messages_and_tools_make_the_same_request() -> None:
    prompt = [
        Message("system", (TextPart("be brief"),)),
        Message("user", (TextPart("what is this?"), ImagePart(data=b"\x89PNG\0", media_type="image/png"))),
    ]
    options = {"tools": [Tool("look", "look at it", {"type": "object"}, strict=True, raw={"x": 1})], "temperature": 0.5}
    kept = unpack(pack(Submission(Task("t", prompt, options=options), "a")))
    assert build(kept.task.filled({}), kept.task.keywords) == build(prompt, options)


def test_what_is_no_data_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="task 't' cannot be kept by the store"):
        pack(Submission(Task("t", "x", metadata={"f": object()}), "a"))


def test_garbage_in_the_store_is_a_clear_error() -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        unpack(b"\xc1garbage")


@pytest.mark.parametrize(
    "request_",
    [
        Request(messages=(Message("user", (TextPart("Hi"),)),)),
        Request(
            messages=(
                Message("system", (TextPart("be brief", extra={"cache_control": {"type": "ephemeral"}}),)),
                Message("user", (TextPart("see"), ImagePart(data=b"\x89\0", media_type="image/png")), name="ann"),
                Message("assistant", (ReasoningPart("hm", signature="s"), ToolCallPart("c1", "look", '{"a": 1}'))),
                Message("tool", (ToolResultPart("c1", (TextPart("seen"),), "look", is_error=True),)),
                Message("assistant", (RefusalPart("no"), UnknownPart({"type": "odd"}, protocol="anthropic"))),
            ),
            model="m",
            max_tokens=5,
            temperature=0.0,
            top_p=0.5,
            stop=("x", "y"),
            seed=0,
            tools=(Tool("look", "look at it", {"type": "object"}, strict=False, extra={"e": 1}),),
            tool_choice="tool:look",
            parallel_tool_calls=False,
            schema={"type": "object"},
            schema_name="thing",
            schema_strict=True,
            reasoning_effort="low",
            protocol="anthropic",
            extra={"thinking": {"type": "enabled"}},
        ),
    ],
)
def test_the_task_of_a_request_asks_exactly_that_request(request_: Request) -> None:
    task = Task.of(request_, "t", agent="a", priority=3, budget=Budget(tokens=5))
    task.check()
    assert (task.agent, task.priority, task.budget) == ("a", 3, Budget(tokens=5))
    assert build(task.filled({}), task.keywords) == request_
    kept = unpack(pack(Submission(task, "a"))).task
    assert build(kept.filled({}), kept.keywords) == request_
