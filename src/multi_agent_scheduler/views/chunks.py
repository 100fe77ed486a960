"""The dicts of ``execute_task_stream``, as the guide prints them: the same keys, in the same order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..records import Usage
    from ..task import Result, Task

__all__ = ["chunk", "final", "usage_dict"]


def chunk(task_id: str, text: str) -> dict[str, Any]:
    """An intermediate dict: one piece of the answer."""
    return {"task_id": task_id, "chunk": text, "done": False}


def final(task: Task, agent_name: str, result: Result, *, batch: int = 0) -> dict[str, Any]:
    """The last dict: the guide's keys, then ours. ``latency`` and ``ttft`` are seconds.

    ``error`` is None or ``"<code>: <our sentence>"``, never the provider's text; an answer that completed without
    success (refused or blocked) has one too. ``cached`` is there, and True, only if the answer came from the cache.
    """
    last: dict[str, Any] = {
        "task_id": task.id,
        "task_type": task.task_type,
        "agent_selected": agent_name,
        "result": result.text,
        "latency": result.latency,
        "done": True,
        "success": result.success,
        "error": None if result.error is None else str(result.error),
        "stream_id": result.stream_id,
        "batch": batch,
        "ttft": result.ttft,
        "usage": usage_dict(result.usage),
        "stop_reason": result.stop_reason,
        "state": result.state,
    }
    if result.cached:
        last["cached"] = True
    if result.cost is not None:
        last["cost"] = result.cost
    return last


def usage_dict(usage: Usage | None) -> dict[str, Any] | None:
    """Usage as plain JSON data; a number is None where it is unknown. ``cached`` is there only if it is True."""
    if usage is None:
        return None
    data: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "source": usage.source,
    }
    if usage.cached:
        data["cached"] = True
    return data
