"""The guide's dicts."""

from __future__ import annotations

import json

from multi_agent_scheduler.errors import ErrorInfo
from multi_agent_scheduler.records import Completed, Usage
from multi_agent_scheduler.task import Result, Task
from multi_agent_scheduler.views.chunks import chunk, final
from multi_agent_scheduler.views.summary import summarise

TASK = Task(id="t1", prompt="Write a haiku", task_type="creative")
GUIDE = ["task_id", "task_type", "agent_selected", "result", "latency", "done", "success", "error"]


def test_an_intermediate_dict_is_exactly_the_guides():
    assert list(chunk("t1", "Hi").items()) == [("task_id", "t1"), ("chunk", "Hi"), ("done", False)]


def test_the_last_dict_begins_with_the_guides_keys_in_the_guides_order():
    result = Result(
        text="Hi", state="completed", success=True, latency=1.5, ttft=0.1, stop_reason="stop", stream_id="s",
        usage=Usage(input_tokens=3, output_tokens=0, raw=object()),
    )  # fmt: skip
    last = final(TASK, "claude", result, batch=2)
    assert list(last) == [*GUIDE, "stream_id", "batch", "ttft", "usage", "stop_reason", "state"]
    assert last | {"usage": None} == {
        "task_id": "t1", "task_type": "creative", "agent_selected": "claude", "result": "Hi", "latency": 1.5,
        "done": True, "success": True, "error": None, "stream_id": "s", "batch": 2, "ttft": 0.1, "usage": None,
        "stop_reason": "stop", "state": "completed",
    }  # fmt: skip
    assert last["usage"] == {
        "input_tokens": 3, "output_tokens": 0, "total_tokens": 3, "reasoning_tokens": None,
        "cache_read_tokens": None, "cache_write_tokens": None, "source": "reported",
    }  # fmt: skip
    assert json.loads(json.dumps(last)) == last


def test_a_failure_shows_our_sentence_and_not_the_providers():
    error = ErrorInfo("server_error", "the provider failed", detail="secret stack trace")
    last = final(TASK, "claude", Result(text="par", state="failed", success=False, error=error))
    assert (last["success"], last["error"], last["result"]) == (False, "server_error: the provider failed", "par")


def test_an_answer_that_completed_without_success_has_an_error():
    last = final(TASK, "claude", summarise([Completed(stop_reason="content_filter")]))
    assert last["state"] == "completed"
    assert last["success"] is False
    assert last["error"] == "content_filter: the provider refused or blocked the content"


def test_cached_is_said_only_of_a_cache_hit():
    assert final(TASK, "claude", Result(text="", state="completed", success=True, cached=True))["cached"] is True
