"""A function as an agent: any async generator of strings or records, so that a user's own SDK can be scheduled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from ..errors import AgentError, CallerError, ErrorInfo, InvalidConfiguration, InvalidOption, agent_error
from ..records import Completed, Record, Text
from ..request import Prompt, Request, build
from ..task import Timeouts
from .base import ErrorMode, LeafAgent, Source
from .context import Context

__all__ = ["FunctionAgent"]

_log = logging.getLogger(__name__)

Generator: TypeAlias = Callable[..., AsyncIterator[str | Record]]


class FunctionAgent(LeafAgent):
    """``fn(prompt, **options)``: an async generator of ``str`` or records.

    ``prompt`` is the string that the agent was called with (the last user message's text, if it was called with
    messages); ``options`` are the call's own keywords, passed as they are. A generator that ends without a terminal
    record is complete; one that raises has failed, and what it gave before is kept. It is closed when the stream is
    stopped.
    """

    protocol = "function"

    def __init__(
        self,
        fn: Generator,
        *,
        name: str | None = None,
        max_concurrent: int | None = None,
        timeouts: Timeouts | None = None,
        errors: ErrorMode = "marker",
    ) -> None:
        if not callable(fn):
            raise InvalidConfiguration(f"FunctionAgent needs an async generator function, not {fn!r}")
        if errors not in ("marker", "raise"):
            raise InvalidOption(f"errors must be 'marker' or 'raise', not {errors!r}")
        self._fn = fn
        self.name = name or getattr(fn, "__name__", "function")
        self.max_concurrent = max_concurrent
        self.timeouts = timeouts
        self.errors = errors

    def __repr__(self) -> str:
        return f"FunctionAgent({self.name})"

    def request(self, prompt: Prompt, **options: Any) -> Request:
        """The options are the function's own: they travel in ``extra``, unchecked."""
        return msgspec.structs.replace(build(prompt, {}), extra=options)

    async def _open(self, request: Request, ctx: Context) -> Source:  # noqa: ARG002
        try:
            items = self._fn(request.prompt, **request.extra)
        except CallerError:
            raise
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            raise _failure(error, self.name) from error
        if not hasattr(items, "__anext__"):
            if hasattr(items, "close"):
                items.close()  # a coroutine that would otherwise warn that it was never awaited
            raise InvalidConfiguration(f"{self.name}: the function must be an async generator, it gave {items!r}")
        return _FunctionSource(items, self.name)


class _FunctionSource(Source):
    def __init__(self, items: AsyncIterator[str | Record], name: str) -> None:
        self._items = items
        self._name = name
        self._task: asyncio.Task[Any] | None = None
        self._failure: ErrorInfo | None = None

    async def next(self) -> Sequence[Record]:
        self._task = asyncio.current_task()
        try:
            item = await self._items.__anext__()
        except StopAsyncIteration:
            return [Completed("stop")]
        except asyncio.CancelledError:
            if self._failure is None or self._task is None:
                raise
            self._task.uncancel()  # it was our time limit, not somebody's cancel
            raise agent_error(self._failure) from None
        except AgentError:
            raise
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            raise _failure(error, self._name) from error
        finally:
            self._task = None
        if isinstance(item, str):
            return [Text(item)] if item else []
        if isinstance(item, Record):
            return [item]
        problem = f"{self._name} gave {type(item).__name__}; an agent gives str or records"
        raise agent_error(ErrorInfo("agent_error", problem))

    def fail(self, info: ErrorInfo) -> None:
        if self._task is not None:
            self._failure = info
            self._task.cancel()

    async def aclose(self) -> None:
        close = getattr(self._items, "aclose", None)
        if close is None:
            return
        try:
            await close()
        except Exception:
            _log.exception("%s raised while it was being closed", self._name)


def _failure(error: Exception, name: str) -> AgentError:
    _log.warning("%s raised %s", name, type(error).__name__, exc_info=error)
    return agent_error(ErrorInfo("agent_error", f"{name} raised {type(error).__name__}"))


