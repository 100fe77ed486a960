"""One Call of a leaf agent: what its records say about it, and its time limits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final

import msgspec

from ..errors import ErrorInfo, agent_error
from ..records import (
    CallEnded,
    CallStarted,
    Completed,
    Failed,
    Interrupted,
    Record,
    Text,
    Usage,
    is_content,
)
from ..scheduling.budget import CHARACTERS_PER_TOKEN
from ..task import Timeouts

if TYPE_CHECKING:
    from .base import Source
    from .context import Context, Permit

__all__ = ["Call", "Deadline", "Watch", "outcome"]


_STEP: Final = 64  # tokens after which a permit is told what has come


class Call:
    """One Call of a leaf agent: what its records say about it. ``prompt`` is about how many tokens its prompt has."""

    __slots__ = ("_began", "_clock", "_known", "_number", "_permit", "_said", "_tell_at", "_ttft", "_usage", "started")

    def __init__(self, started: CallStarted, ctx: Context, permit: Permit, prompt: int = 0) -> None:
        self.started = started
        self._known = prompt  # tokens, without the characters that have been said since
        self._said = 0
        self._tell_at = prompt + _STEP
        self._permit = permit
        self._number = started.call
        self._clock = ctx.clock
        self._began = ctx.clock()
        self._ttft: float | None = None
        self._usage: Usage | None = None

    def seen(self, batch: Sequence[Record]) -> bool:
        """Whether the batch has content; numbers its usage records."""
        content = False
        for index, record in enumerate(batch):
            if type(record) is Text:  # nearly all of them are
                content = content or record.text != ""
                self._said += len(record.text)
            elif is_content(record):
                content = True
                self._said += len(getattr(record, "text", "") or getattr(record, "arguments", ""))
            elif type(record) is Usage:
                self._usage = msgspec.structs.replace(record, call=self._number)
                if (tokens := self._usage.total_tokens) is not None:
                    self._permit.used(tokens)
                    self._known, self._said, self._tell_at = tokens, 0, tokens + _STEP
                batch[index] = self._usage  # type: ignore[index]  # a source's batches are lists
        if content:
            if self._ttft is None:
                self._ttft = self._clock() - self._began
            tokens = self._known + self._said // CHARACTERS_PER_TOKEN
            if tokens >= self._tell_at:
                self._permit.used(tokens)
                self._tell_at = tokens + _STEP
        return content

    def ended(self, batch: Sequence[Record], source: Source | None) -> Sequence[Record]:
        """The last batch, with ``call_ended`` put before its terminal; the permit hears how it went."""
        *rest, terminal = batch
        error = terminal.error if isinstance(terminal, Failed | Interrupted) else None
        tokens = None if self._usage is None else self._usage.total_tokens
        if tokens is None and self._said >= CHARACTERS_PER_TOKEN:  # nobody says it: what came is all that is known
            self._permit.used(self._known + self._said // CHARACTERS_PER_TOKEN)
        self._permit.answered(error, tokens)
        ended = CallEnded(
            call=self._number,
            outcome=type(terminal).__struct_config__.tag,  # type: ignore[arg-type]
            stop_reason=terminal.stop_reason if isinstance(terminal, Completed) else None,
            error=error,
            usage=self._usage,
            model=source.model if source else None,
            response_id=source.response_id if source else None,
            request_id=source.request_id if source else error.request_id if error else None,
            latency=self._clock() - self._began,
            ttft=self._ttft,
        )
        return (*rest, ended, terminal)


class Deadline:
    """``with``: what the running task awaits inside may take ``seconds``, or AgentError says which limit has passed.

    It cancels as ``asyncio.timeout`` does, by the same rules, at a third of the cost. ``name`` and ``limit`` are for
    the error; the limit is ``seconds`` unless it began to count before. Infinity is no limit.
    """

    __slots__ = ("_cancels", "_limit", "_name", "_passed", "_seconds", "_task", "_timer")

    def __init__(self, name: str, seconds: float, limit: float | None = None) -> None:
        self._name = name
        self._seconds = seconds
        self._limit = seconds if limit is None else limit
        self._timer: asyncio.TimerHandle | None = None
        self._passed = False

    def __enter__(self) -> None:
        if self._seconds != math.inf:
            task = asyncio.current_task()
            assert task is not None
            self._task = task
            self._cancels = task.cancelling()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, self._seconds), self._ring)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is None:
            return
        self._timer.cancel()
        if self._passed and self._task.uncancel() <= self._cancels and kind is asyncio.CancelledError:
            raise agent_error(timed_out(self._name, self._limit)) from None

    def _ring(self) -> None:
        self._passed = True
        self._task.cancel()


class Watch:
    """The time limits of one Call, with one timer that is moved, not made anew, while content flows."""

    __slots__ = ("_at", "_between", "_ends", "_limits", "_loop", "_name", "_next", "_rings", "_source", "_timer")

    def __init__(self, limits: Timeouts, used: float) -> None:
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._limits = limits
        self._ends = now - used + (limits.total or math.inf)
        self._between = limits.between_content or math.inf
        self._next = now + (limits.first_content or math.inf)
        self._name = "first_content"
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._rings = math.inf  # when the timer does
        self._source: Source | None = None

    def first_wait(self) -> tuple[float, str]:
        """Seconds until the first limit passes, and its name."""
        now = self._loop.time()
        return (self._ends - now, "total") if self._ends < self._next else (self._next - now, "first_content")

    def arm(self, source: Source) -> None:
        """The agent begins to wait for the provider."""
        if self._next == -1.0:  # content came: the limit counts from now, not from when the reader was busy
            self._next = self._loop.time() + self._between
        self._source = source
        self._at = at = self._next if self._next < self._ends else self._ends
        if at < self._rings:
            self._schedule(at)

    def disarm(self) -> None:
        """The provider has said something."""
        self._source = None

    def content(self) -> None:
        """It was content: the next limit is the one between contents."""
        self._next = -1.0
        self._name = "between_content"

    def excuse(self, seconds: float) -> None:
        """The reader was busy for so long with something that was no content: the limit is put off."""
        self._next += seconds

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._source = None

    def _schedule(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._ring)
        self._rings = at

    def _ring(self) -> None:
        self._timer = None
        self._rings = math.inf
        if self._source is None:
            return
        if self._loop.time() < self._at:
            self._schedule(self._at)
            return
        name = "total" if self._ends <= self._next else self._name
        self._source.fail(timed_out(name, getattr(self._limits, name)))


_WAITED: Final = {
    "queue": "no permit",
    "connect": "no connection",
    "first_content": "no content",
    "between_content": "no further content",
    "total": "not finished",
}


def timed_out(name: str, seconds: float) -> ErrorInfo:
    return ErrorInfo("timeout_error", f"{_WAITED[name]} within the {name} limit of {seconds:g} s", retryable=True)


def outcome(info: ErrorInfo) -> Failed | Interrupted:
    return Interrupted(info) if info.code == "interrupted" else Failed(info)
