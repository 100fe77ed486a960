"""A function as an agent: any async generator of strings or records, so that a user's own SDK can be scheduled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from types import CodeType
from typing import Any, Final, TypeAlias

import msgspec

from ..errors import AgentError, ErrorInfo, InvalidConfiguration, InvalidOption, agent_error
from ..records import Completed, Record, Text
from ..request import Prompt, Request, build
from ..task import Timeouts
from ..wire.portable import SPOKEN
from .base import ErrorMode, LeafAgent, Source
from .context import Context
from .settings import check_settings

__all__ = ["FunctionAgent"]

_log = logging.getLogger(__name__)

# A function over a client that blocks never waits for anything itself: so often its readers are given their turn.
_PAUSE_SECONDS: Final = 0.005

Generator: TypeAlias = Callable[..., AsyncIterator[str | Record]]

_NAMES: Final = tuple(name for name in Request.__struct_fields__ if name not in ("messages", "extra", "protocol"))

_KEYWORDS: Final = 0x08  # the flags of a code object, as in the module inspect, which is slow to import
_GENERATOR: Final = 0x20
_COROUTINE: Final = 0x80
_ASYNC_GENERATOR: Final = 0x200


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
        self.name = name or str(getattr(fn, "__name__", type(fn).__name__))
        flags = _flags(fn)
        if flags & (_GENERATOR | _COROUTINE):
            kind = "a coroutine function (it has no yield)" if flags & _COROUTINE else "a plain generator function"
            raise InvalidConfiguration(f"FunctionAgent needs an async generator function; {self.name} is {kind}")
        check_settings(errors=errors, timeouts=timeouts, max_concurrent=max_concurrent)
        self._fn = fn
        self._lazy = bool(flags & _ASYNC_GENERATOR)  # calling it runs nothing yet
        self.max_concurrent = max_concurrent
        self.timeouts = timeouts
        self.errors = errors

    def __repr__(self) -> str:
        return f"FunctionAgent({self.name})"

    def request(self, prompt: Prompt, **options: Any) -> Request:
        """The options are the function's own: they travel in ``extra``, unchecked.

        Of what a client said in a protocol of its own, which may demand options (``max_tokens``) whoever answers, the
        function gets what it has a parameter for.
        """
        if options.get("protocol") in SPOKEN:
            options = {name: value for name, value in options.items() if self._takes(name)}
        return msgspec.structs.replace(build(prompt, {}), extra=options)

    def adopt(self, request: Request) -> Request:
        """The options that were said become keywords of the function: it has no others."""
        said = {name: value for name in _NAMES if (value := getattr(request, name)) not in (None, ())}
        if request.protocol in SPOKEN:
            said = {name: value for name, value in said.items() if self._takes(name)}
        extra = request.extra if request.protocol is None else {}
        return Request(messages=request.messages, extra={**said, **extra})

    def _takes(self, name: str) -> bool:
        """Whether an option of a client's is for the function."""
        if name in ("extra", "protocol"):
            return False
        code = _code(self._fn)
        if code is None or code.co_flags & _KEYWORDS:
            return True
        return name in code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]

    def _prepare(self, request: Request) -> Callable[[], Any]:
        if not self._lazy:
            return partial(self._fn, request.prompt, **request.extra)
        try:
            items = self._fn(request.prompt, **request.extra)
        except TypeError as error:  # only the arguments have been looked at
            raise InvalidOption(f"{self.name}: {error}") from None
        return lambda: items

    async def _open(self, prepared: Callable[[], Any], ctx: Context) -> Source:  # noqa: ARG002
        try:
            items = prepared()
        except AgentError:
            raise
        except Exception as error:
            raise _failure(error, self.name) from error
        if not hasattr(items, "__anext__"):
            close = getattr(items, "close", None)
            if close is not None:
                close()  # a coroutine would otherwise warn that it was never awaited
            problem = f"{self.name} is no async generator function: calling it gave {_article(items)}"
            raise agent_error(ErrorInfo("agent_error", problem))
        return _FunctionSource(items, self.name)


class _FunctionSource(Source):
    def __init__(self, items: AsyncIterator[str | Record], name: str) -> None:
        self._items = items
        self._name = name
        self._task: asyncio.Task[Any] | None = None
        self._cancels = 0  # that the task had been asked for before the one of a time limit
        self._failure: ErrorInfo | None = None
        self._half = ""  # the first half of a surrogate pair, whose second is to come
        self._clock = asyncio.get_running_loop().time
        self._pause_at = self._clock() + _PAUSE_SECONDS

    async def next(self) -> Sequence[Record]:
        self._task = asyncio.current_task()
        try:
            if self._clock() >= self._pause_at:
                await asyncio.sleep(0)
                self._pause_at = self._clock() + _PAUSE_SECONDS
            item = await self._items.__anext__()
        except StopAsyncIteration:
            self._check_limit()
            return [*self._text("", last=True), Completed("stop")]
        except asyncio.CancelledError:
            self._check_limit()
            raise
        except AgentError:
            self._check_limit()
            raise
        except Exception as error:
            self._check_limit()
            raise _failure(error, self._name) from error
        finally:
            self._task = None
        self._check_limit()
        if isinstance(item, str):
            return self._text(item) if self._half or not item.isascii() else [Text(item)] if item else []
        if isinstance(item, Record):
            return [item]
        problem = f"{self._name} gave {_article(item)}; an agent gives str or records"
        raise agent_error(ErrorInfo("agent_error", problem))

    def _text(self, piece: str, *, last: bool = False) -> list[Record]:
        """The piece with whole characters only: SDKs hand on what a sender cut between two halves of an emoji."""
        piece, self._half = self._half + piece, ""
        try:
            piece.encode()
        except UnicodeEncodeError:
            if not last and "\ud800" <= piece[-1] <= "\udbff":
                piece, self._half = piece[:-1], piece[-1]
            piece = piece.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return [Text(piece)] if piece else []

    def fail(self, info: ErrorInfo) -> None:
        if self._task is not None and self._failure is None:
            self._failure = info
            self._cancels = self._task.cancelling()
            self._task.cancel()

    def _check_limit(self) -> None:
        """Raise for a time limit that passed, whatever the function made of being cancelled for it."""
        if self._failure is None or self._task is None:
            return
        if self._task.uncancel() <= self._cancels:  # else somebody else has cancelled the task as well: that goes first
            raise agent_error(self._failure) from None

    async def aclose(self) -> None:
        close = getattr(self._items, "aclose", None)
        if close is None:
            return
        try:
            await close()
        except Exception:  # noqa: BLE001 - the user's code may raise anything, and the stream has had its outcome
            _log.exception("%s raised while it was being closed", self._name)


def _flags(fn: Any) -> int:
    code = _code(fn)
    return 0 if code is None else code.co_flags


def _code(fn: Any) -> CodeType | None:
    """The code that a call runs; None for what is not written in Python."""
    while isinstance(fn, partial):
        fn = fn.func
    if not hasattr(fn, "__code__"):
        fn = type(fn).__call__
    return getattr(fn, "__code__", None)


def _article(thing: object) -> str:
    name = type(thing).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _failure(error: Exception, name: str) -> AgentError:
    _log.warning("%s raised %s", name, type(error).__name__, exc_info=error)
    return agent_error(ErrorInfo("agent_error", f"{name} raised {type(error).__name__}"))
