"""What a scheduler does with answers that are objects: streams them as they grow, item by item, or whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from .agents.structured import items, items_path, objects
from .errors import InvalidRequest, agent_error
from .records import Record
from .request import build
from .schema import Path, Schema
from .store.follow import Follower
from .submission import Terms, terms
from .task import Task
from .views.objects import ObjectView, Partial
from .views.tool_calls import PartialCall, ToolCallsView

if TYPE_CHECKING:
    from .execution import Execution
    from .runner import Run
    from .store.base import Store

__all__ = ["ObjectTasks"]


class ObjectTasks(ABC):
    """The part of a scheduler that runs tasks whose answers are objects."""

    _store: Store

    @abstractmethod
    async def _begun(self, task: Task, agent_name: str | None, on: Terms) -> tuple[Execution, Run]:
        """The run of a task that has just been accepted, and who runs it."""

    async def stream_object(
        self,
        task: Task,
        agent_name: str | None = None,
        *,
        owner: str = "",
        trace: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Partial, None]:
        """Run a task with a ``schema`` and give out its answer as it grows, a
        :class:`~multi_agent_scheduler.views.objects.Partial` for each batch that changes it.

        Every place is checked when it closes. If the answer does not fit, or the agent fails in the middle of it and
        another begins anew, the next partial says so (``restarted``). Raises
        :class:`~multi_agent_scheduler.errors.AgentError` if there is no whole object that fits in the end
        (:class:`~multi_agent_scheduler.errors.InvalidOutput` says where and why); its ``known`` is what was known, its
        ``partial`` the result. The caller's mistakes raise :class:`~multi_agent_scheduler.errors.CallerError` before
        the first partial. Leaving early stops the task.
        """
        task, schema = _checked(task)
        execution, run = await self._begun(task, agent_name, terms(owner, trace))
        try:
            view = ObjectView(schema)
            async with aclosing(objects(_batches(self._store, run.stream_id), view, run.wait)) as partials:
                async for partial in partials:
                    yield partial
        finally:
            await execution.left(run)

    async def object(
        self,
        task: Task,
        agent_name: str | None = None,
        *,
        owner: str = "",
        trace: Mapping[str, str] | None = None,
    ) -> Any:
        """The same, drained: the whole object, of the type that the task's ``schema`` is. Raises as stream_object."""
        async with aclosing(self.stream_object(task, agent_name, owner=owner, trace=trace)) as partials:
            async for partial in partials:
                last = partial
        return last.value

    async def stream_items(
        self,
        task: Task,
        agent_name: str | None = None,
        path: str | Path = "",
        *,
        owner: str = "",
        trace: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Run a task with a ``schema`` and give out the items of an array in its answer, each when it is whole.

        ``path`` leads to the array: ``"steps"``, ``"menu.courses"``, or a tuple; "" is the answer itself. Raises
        :class:`~multi_agent_scheduler.errors.InvalidOption` if the schema has no array there, and as stream_object. An
        item cannot be taken back: if the answer begins anew after the first was given out,
        :class:`~multi_agent_scheduler.errors.StreamReset` is raised.
        """
        place = items_path(_checked(task)[1], path)
        partials = self.stream_object(task, agent_name, owner=owner, trace=trace)
        async with aclosing(partials), aclosing(items(partials, place)) as found:
            async for item in found:
                yield item

    async def stream_tool_calls(
        self,
        task: Task,
        agent_name: str | None = None,
        *,
        owner: str = "",
        trace: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[PartialCall, None]:
        """Run a task with tools and give out the arguments of each call as they grow, a
        :class:`~multi_agent_scheduler.views.tool_calls.PartialCall` for each batch that changes them.

        They are checked against the ``parameters`` of the task's tools. Raises
        :class:`~multi_agent_scheduler.errors.AgentError` if the agent fails. Leaving early stops the task.
        """
        if not isinstance(task, Task):
            raise InvalidRequest(f"a task must be a Task, not {type(task).__name__}")
        tools = build("-", {"tools": task.options.get("tools", ())}).tools
        view = ToolCallsView({tool.name: tool.parameters for tool in tools if tool.parameters is not None})
        execution, run = await self._begun(task, agent_name, terms(owner, trace))
        try:
            async with aclosing(_batches(self._store, run.stream_id)) as batches:
                async for batch in batches:
                    for call in view.feed(batch):
                        yield call
            result = await run.wait()
            if result.error is not None:
                raise agent_error(result.error, partial=result)
            for call in view.close():
                yield call
        finally:
            await execution.left(run)


def _checked(task: Task) -> tuple[Task, Schema]:
    if not isinstance(task, Task):
        raise InvalidRequest(f"a task must be a Task, not {type(task).__name__}")
    if task.schema is None:
        raise InvalidRequest(f"task {task.id!r}: it has no schema: say with schema= what the object is")
    if task.ask_again is None:
        task = msgspec.structs.replace(task, ask_again=0)
    return task, Schema.of(task.schema)


async def _batches(store: Store, stream_id: str) -> AsyncGenerator[Sequence[Record], None]:
    follower = Follower(store, stream_id)
    while records := await follower.next():
        yield records
