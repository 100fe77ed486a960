"""A task as the store keeps it, so that it can be run again by another process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from .errors import InvalidOption, InvalidRequest, StoreError
from .schema import json_schema
from .task import Budget, Task, Template, Timeouts

__all__ = ["Submission", "Terms", "pack", "terms", "unpack"]

_FIELD: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2: token
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_OWNER_CHARACTERS: Final = 256


class Terms(msgspec.Struct, frozen=True):
    """On whose behalf something is run: its ``owner`` ("" is nobody in particular), and the fields that tell every
    provider which ``trace`` its Calls belong to (``traceparent``)."""

    owner: str = ""
    trace: Mapping[str, str] = {}


def terms(owner: str = "", trace: Mapping[str, str] | None = None) -> Terms:
    """Raises InvalidOption for an owner or a trace that cannot be."""
    if not isinstance(owner, str) or len(owner) > _OWNER_CHARACTERS:
        raise InvalidOption(f"owner must be a string of at most {_OWNER_CHARACTERS} characters, not {owner!r}")
    if trace is None:
        return Terms(owner) if owner else _NOBODY
    if not isinstance(trace, Mapping):
        raise InvalidOption(f"trace must map names of header fields to their values, not {trace!r}")
    for name, value in trace.items():
        if not isinstance(name, str) or _FIELD.fullmatch(name) is None:
            raise InvalidOption(f"trace: {name!r} cannot be the name of a header field")
        if not isinstance(value, str) or _VALUE.fullmatch(value) is None:
            raise InvalidOption(f"trace[{name!r}] must be printable ASCII, not {value!r}")
    return Terms(owner, dict(trace))


_NOBODY: Final = Terms()


class Submission(msgspec.Struct, frozen=True):
    """A task that was accepted: the task itself, the agent that runs it, the number of its batch, and the budget of
    the plan that it belongs to."""

    task: Task
    agent: str
    batch: int = 0
    plan_budget: Budget | None = None


class _Kept(msgspec.Struct, omit_defaults=True):
    id: str
    prompt: Any
    agent: str
    batch: int = 0
    template: bool = False
    task_type: str = "general"
    named: str | None = None
    depends_on: tuple[str, ...] = ()
    priority: int = 0
    on_failure: Literal["skip", "run"] = "skip"
    timeouts: Timeouts | None = None
    budget: Budget | None = None
    plan_budget: Budget | None = None
    schema: dict[str, Any] | None = None
    ask_again: int | None = None
    options: dict[str, Any] = {}
    metadata: dict[str, Any] = {}


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Kept)


def pack(submission: Submission) -> bytes:
    """The bytes to keep. Raises InvalidRequest if a prompt, an option or the metadata has something that is no data."""
    task = submission.task
    template = isinstance(task.prompt, Template)
    kept = _Kept(
        id=task.id,
        prompt=task.prompt.text if isinstance(task.prompt, Template) else task.prompt,
        agent=submission.agent,
        batch=submission.batch,
        template=template,
        task_type=task.task_type,
        named=task.agent,
        depends_on=tuple(task.depends_on),
        priority=task.priority,
        on_failure=task.on_failure,
        timeouts=task.timeouts,
        budget=task.budget,
        plan_budget=submission.plan_budget,
        schema=None if task.schema is None else json_schema(task.schema),
        ask_again=task.ask_again,
        options=dict(task.options),
        metadata=dict(task.metadata),
    )
    try:
        return _encoder.encode(kept)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"task {task.id!r} cannot be kept by the store: {error}") from None


def unpack(body: bytes) -> Submission:
    """What :func:`pack` was given, messages and tools as plain dicts. Raises StoreError for anything else."""
    try:
        kept = _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise StoreError(f"a task in the store cannot be read: {error}") from None
    task = Task(
        kept.id,
        Template(kept.prompt) if kept.template else kept.prompt,
        kept.task_type,
        agent=kept.named,
        depends_on=kept.depends_on,
        priority=kept.priority,
        on_failure=kept.on_failure,
        timeouts=kept.timeouts,
        budget=kept.budget,
        schema=kept.schema,
        ask_again=kept.ask_again,
        options=kept.options,
        metadata=kept.metadata,
    )
    return Submission(task, kept.agent, kept.batch, kept.plan_budget)
