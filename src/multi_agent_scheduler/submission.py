"""A task as the store keeps it, so that it can be run again by another process."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .errors import InvalidRequest, StoreError
from .task import Task, Template, Timeouts

__all__ = ["Submission", "pack", "unpack"]


class Submission(msgspec.Struct, frozen=True):
    """A task that was accepted: the task itself, the agent that runs it, and the number of its batch."""

    task: Task
    agent: str
    batch: int = 0


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
    schema: dict[str, Any] | None = None
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
        schema=task.schema,
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
        schema=kept.schema,
        options=kept.options,
        metadata=kept.metadata,
    )
    return Submission(task, kept.agent, kept.batch)
