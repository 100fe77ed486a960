"""Who is told of a stream's life: the event bus, the metrics, and OpenTelemetry where it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from .events import STREAM_CANCELLED, STREAM_CHUNK, STREAM_COMPLETED, STREAM_FAILED, STREAM_STARTED, EventBus
from .metrics import Metrics
from .records import Record, Text
from .runner import Run, Watcher
from .submission import Submission, Terms
from .task import Result, Task
from .views import chunks

if TYPE_CHECKING:
    from .agents.context import Context
    from .request import Request
    from .telemetry import Telemetry

__all__ = ["Notices", "Notified", "SkipNotices"]


class Notified(msgspec.Struct, frozen=True):
    """Who is told of every run of a scheduler."""

    bus: EventBus
    metrics: Metrics
    telemetry: Telemetry | None = None

    def terms(self, terms: Terms) -> Terms:
        """The terms with the trace that is current where something is submitted, unless they have one."""
        if self.telemetry is None or terms.trace:
            return terms
        return msgspec.structs.replace(terms, trace=self.telemetry.current())

    def watcher(self, kept: Submission, context: Context, request: Callable[[], Request]) -> Watcher:
        """The watcher of one run."""
        notices = Notices(self.bus, self.metrics, kept.task, kept.batch)
        if self.telemetry is None:
            return notices
        return self.telemetry.watcher(notices, kept.task, context, request)


class Notices(Watcher):
    """Events and metrics of one run."""

    def __init__(self, bus: EventBus, metrics: Metrics, task: Task, batch: int) -> None:
        self._bus = bus
        self._metrics = metrics
        self._task = task
        self._batch = batch
        self._gaps = metrics.histogram("stream.between_chunks_seconds")
        self._last: float | None = None

    def started(self, run: Run) -> None:
        self._metrics.stream_started(self._task.task_type)
        if self._bus.has_listeners(STREAM_STARTED):
            self._bus.emit(STREAM_STARTED, self._about(run))

    def batch(self, run: Run, records: Sequence[Record], now: float) -> None:
        texts = [record.text for record in records if type(record) is Text and record.branch is None and record.text]
        if not texts:
            return
        if self._last is not None:
            self._gaps.observe(now - self._last)
        self._last = now
        if self._bus.has_listeners(STREAM_CHUNK):
            for text in texts:
                self._bus.emit(STREAM_CHUNK, {"task_id": self._task.id, "stream_id": run.stream_id, "chunk": text})

    def ended(self, run: Run, result: Result) -> None:
        self._metrics.stream_ended(
            self._task.task_type, result.state, result.success, result.latency, result.ttft, result.usage
        )
        name = STREAM_FAILED
        if result.success:
            name = STREAM_COMPLETED
        elif result.state == "cancelled":
            name = STREAM_CANCELLED
        if self._bus.has_listeners(name):
            about = self._about(run)
            about |= {
                "success": result.success,
                "state": result.state,
                "error": None if result.error is None else str(result.error),
                "latency": result.latency,
                "ttft": result.ttft,
                "stop_reason": result.stop_reason,
                "usage": chunks.usage_dict(result.usage),
                "characters": len(result.text),
            }
            self._bus.emit(name, about)

    def broken(self, run: Run) -> None:  # noqa: ARG002
        self._metrics.gauge("streams.active").dec()

    def _about(self, run: Run) -> dict[str, Any]:
        return {
            "task_id": self._task.id,
            "task_type": self._task.task_type,
            "agent": run.agent_name,
            "stream_id": run.stream_id,
            "batch": self._batch,
        }


class SkipNotices(Watcher):
    """A task that does not run is counted; no event tells of it."""

    def __init__(self, metrics: Metrics, task_type: str) -> None:
        self._metrics = metrics
        self._task_type = task_type

    def ended(self, run: Run, result: Result) -> None:  # noqa: ARG002
        self._metrics.stream_ended(self._task_type, result.state, result.success, 0.0, None, None)
