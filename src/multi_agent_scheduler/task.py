"""What to do: tasks, their time limits, and what comes of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from .errors import ErrorInfo, InvalidOption, InvalidRequest
from .records import StopReason, TerminalName, Usage
from .request import Prompt

__all__ = ["DEFAULT_TIMEOUTS", "Result", "State", "Task", "Timeouts"]

State: TypeAlias = TerminalName
"""How a task ended: its terminal's name."""


class Timeouts(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Limits in seconds; None leaves a limit as it was in the agent's or the default.

    ``queue``: waiting for a permit. ``connect``: until the connection stands. ``first_content``: from the request to the
    first content. ``between_content``: from one content to the next; keep-alives and empty frames do not count as
    content, and a reader that dawdles does not use it up. ``total``: all of it. ``math.inf`` switches a limit off.
    """

    queue: float | None = None
    connect: float | None = None
    first_content: float | None = None
    between_content: float | None = None
    total: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value <= 0:
                raise InvalidOption(f"timeouts: {name} must be a number of seconds above 0, not {value!r}")

    def over(self, base: Timeouts) -> Timeouts:
        """These limits, and those of ``base`` where these say nothing."""
        mine = {name: getattr(self, name) for name in self.__struct_fields__ if getattr(self, name) is not None}
        return msgspec.structs.replace(base, **mine) if mine else base


DEFAULT_TIMEOUTS = Timeouts(queue=math.inf, connect=10.0, first_content=300.0, between_content=120.0, total=math.inf)


class _TaskOptions(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    agent: str | None = None
    timeouts: Timeouts | None = None
    options: Mapping[str, Any] = msgspec.field(default_factory=dict)
    metadata: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Task(_TaskOptions, frozen=True, omit_defaults=True):
    """One thing to do.

    ``prompt`` is a string or messages, sent as it is. ``task_type`` picks the agent where none is named and labels the
    metrics. ``options`` are the keywords of ``Agent.call`` (``max_tokens``, ``system`` ...). A task is checked when it is
    handed to a scheduler, before anything runs.
    """

    id: str
    prompt: Prompt
    task_type: str = "general"

    def check(self) -> None:
        """Raise :class:`~multi_agent_scheduler.errors.InvalidRequest` if this task cannot be run; names the field."""
        if not isinstance(self.id, str) or not self.id:
            raise InvalidRequest(f"a task's id must be a non-empty string, not {self.id!r}")
        if not isinstance(self.task_type, str) or not self.task_type:
            raise InvalidRequest(f"task {self.id!r}: task_type must be a non-empty string, not {self.task_type!r}")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a task or a call: a fold of its records.

    ``state`` is the terminal's name; ``success`` is narrower: completed with a stop reason of stop, stop_sequence,
    length or tool_calls. ``text`` is whatever was received, also after a failure. ``latency`` and ``ttft`` (time to
    first content) are seconds.
    """

    text: str
    state: State
    success: bool
    error: ErrorInfo | None = None
    stop_reason: StopReason | None = None
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCallResult, ...] = ()
    usage: Usage | None = None
    latency: float = 0.0
    ttft: float | None = None
    agent: str | None = None
    model: str | None = None
    stream_id: str | None = None
    cached: bool = False

    def __str__(self) -> str:
        return self.text


class ToolCallResult(msgspec.Struct, frozen=True):
    """One finished tool call; ``arguments`` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str
    kind: Literal["function", "custom", "server"] = "function"
