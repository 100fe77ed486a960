"""A task survives being kept: what is read back runs the same."""

from __future__ import annotations

import pytest

from multi_agent_scheduler.errors import InvalidRequest, StoreError
from multi_agent_scheduler.request import ImagePart, Message, TextPart, Tool, build
from multi_agent_scheduler.submission import Submission, pack, unpack
from multi_agent_scheduler.task import Task, Template, Timeouts


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
        schema={"type": "object"},
        options={"max_tokens": 5, "stop": ["x"]},
        metadata={"user": {"id": 7}},
    )
    assert unpack(pack(Submission(task, "claude", 4))) == Submission(task, "claude", 4)


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
