"""One tree of errors, split by whose fault it is.

``CallerError``
    the caller asked for something that cannot be: raised before anything runs.
``AgentError``
    an agent (a provider, the network, a user's function) failed: carries what the provider said and the partial result.
``StoreError``
    the store cannot do its work: nothing uncommitted was shown.

An agent's failure travels through logs and wires as an :class:`ErrorInfo`; :func:`agent_error` turns one into the
exception to raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from .task import Result

__all__ = [
    "AgentError",
    "AgentTimeout",
    "AuthenticationError",
    "BudgetExceeded",
    "CallCancelled",
    "CallerError",
    "ConnectionFailed",
    "ContentFiltered",
    "CursorError",
    "DependencyCycle",
    "DuplicateTask",
    "ErrorInfo",
    "Interrupted",
    "InvalidConfiguration",
    "InvalidJSON",
    "InvalidOption",
    "InvalidOutput",
    "InvalidRequest",
    "InvalidTemplate",
    "LogFull",
    "LogTrimmed",
    "OverloadedError",
    "PlanError",
    "ProtocolError",
    "RateLimitError",
    "RequestOverLimit",
    "RequestRefused",
    "ResponseTooLarge",
    "SchedulerError",
    "ServerError",
    "StoreClosed",
    "StoreError",
    "StreamExists",
    "StreamNotFound",
    "StreamReset",
    "Suspended",
    "UnknownAgent",
    "UnknownDependency",
    "WrongLoop",
    "agent_error",
]


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of an agent's failure, in a form that a log can keep and a wire can carry.

    ``code`` is one of this project's codes (the keys of the table in :func:`agent_error`), the same whatever the
    provider; ``provider_code`` is the provider's own. ``message`` is a sentence of ours; ``detail`` is the provider's
    text, bounded in length and with keys removed, and is never put into a model's text. ``retry_after`` is in seconds.
    """

    code: str
    message: str
    status: int | None = None
    provider_code: str | None = None
    detail: str | None = None
    request_id: str | None = None
    retry_after: float | None = None
    retryable: bool = False

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class SchedulerError(Exception):
    """The root of every error that this package raises on purpose."""


# --- the caller's fault -----------------------------------------------------------------------------------------


class CallerError(SchedulerError, ValueError):
    """The caller asked for something that cannot be done. Nothing was run."""


class InvalidRequest(CallerError):
    """A prompt, a message or a request body that does not fit; the text names the field."""


class InvalidOption(CallerError):
    """An option that is unknown or out of range; the text names it."""


class InvalidConfiguration(CallerError):
    """An agent, scheduler or configuration file that cannot work as it is set up."""


class UnknownAgent(CallerError):
    """A name that no agent has; the text lists the names that exist."""


class WrongLoop(CallerError):
    """An object bound to one event loop was used from another."""


class InvalidTemplate(CallerError):
    """A template that cannot be read or filled. ``position`` counts characters from 0; None where none is at fault."""

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class RequestOverLimit(CallerError):
    """A request that its agent's limits will never admit, however long it waits; the text names the limit."""


class PlanError(CallerError):
    """A plan that cannot be run as it is written. Nothing of it was run."""


class DuplicateTask(PlanError):
    """Two tasks of a plan have the same id."""


class UnknownDependency(PlanError):
    """A task depends on one that the plan does not have; the text names both, and ids that look alike."""


class DependencyCycle(PlanError):
    """Tasks that wait for each other. ``cycle`` has their ids, each depending on the next and the last on the first."""

    def __init__(self, message: str, cycle: tuple[str, ...]) -> None:
        super().__init__(message)
        self.cycle = cycle

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.cycle)


# --- an agent's fault -------------------------------------------------------------------------------------------


class AgentError(SchedulerError):
    """An agent failed. ``partial`` holds what had been received, when the raiser had it.

    ``status`` (HTTP), ``request_id``, ``retry_after`` (seconds) and ``provider_code`` are the provider's, None where it
    gave none; ``code`` is this project's; ``retryable`` says whether the same request may succeed later. ``known`` is
    what was known of an answer that was to be an object, ``msgspec.UNSET`` if that is nothing.
    """

    known: Any = msgspec.UNSET

    def __init__(self, info: ErrorInfo, *, partial: Result | None = None) -> None:
        super().__init__(info, partial)
        self.info = info
        self.partial = partial

    def __str__(self) -> str:
        text = self.info.message
        if self.info.detail:
            text = f"{text} (the provider said: {self.info.detail})"
        return text

    @property
    def status(self) -> int | None:
        return self.info.status

    @property
    def code(self) -> str:
        return self.info.code

    @property
    def provider_code(self) -> str | None:
        return self.info.provider_code

    @property
    def request_id(self) -> str | None:
        return self.info.request_id

    @property
    def retry_after(self) -> float | None:
        return self.info.retry_after

    @property
    def retryable(self) -> bool:
        return self.info.retryable

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.info, self.partial)


def _rebuild(kind: type[AgentError], info: ErrorInfo, partial: Result | None) -> AgentError:
    return kind(info, partial=partial)


class AuthenticationError(AgentError):
    """The key is missing, refused or not allowed to do this."""


class RequestRefused(AgentError):
    """The provider refused the request itself: unknown model, bad parameter, too large."""


class RateLimitError(AgentError):
    """The provider's rate limit or quota."""


class OverloadedError(AgentError):
    """The provider has no capacity at the moment."""


class ServerError(AgentError):
    """The provider failed inside."""


class ConnectionFailed(AgentError):
    """No connection to the provider could be made: nothing was received."""


class AgentTimeout(AgentError):
    """One of the limits of :class:`~multi_agent_scheduler.task.Timeouts` passed."""


class Interrupted(AgentError):
    """The answer ended before its protocol's finish marker."""


class ProtocolError(AgentError):
    """What came is not what the protocol allows: a garbled event, HTML, wrong encoding, nothing at all."""


class ResponseTooLarge(AgentError):
    """A line, an event, a body or a log passed its bound."""


class InvalidOutput(AgentError):
    """The answer is no object that fits its schema; the message says where and why."""


class ContentFiltered(AgentError):
    """The provider refused or blocked the content. The Call completed; it is not a success."""


class BudgetExceeded(AgentError):
    """A budget of tokens or cost was used up, so that the Call was stopped, or not begun."""


class CallCancelled(AgentError):
    """The Call was stopped on request."""


_KINDS: Final[dict[str, type[AgentError]]] = {
    "invalid_request_error": RequestRefused,
    "not_found_error": RequestRefused,
    "request_too_large": RequestRefused,
    "authentication_error": AuthenticationError,
    "permission_error": AuthenticationError,
    "rate_limit_error": RateLimitError,
    "insufficient_quota": RateLimitError,
    "overloaded_error": OverloadedError,
    "server_error": ServerError,
    "connection_error": ConnectionFailed,
    "timeout_error": AgentTimeout,
    "interrupted": Interrupted,
    "protocol_error": ProtocolError,
    "response_too_large": ResponseTooLarge,
    "content_filter": ContentFiltered,
    "invalid_output": InvalidOutput,
    "budget_exceeded": BudgetExceeded,
    "cancelled": CallCancelled,
    "agent_error": AgentError,
    "internal_error": AgentError,
}


def agent_error(info: ErrorInfo, *, partial: Result | None = None) -> AgentError:
    """The exception for a failure; an unknown code gives a plain :class:`AgentError`."""
    return _KINDS.get(info.code, AgentError)(info, partial=partial)


class InvalidJSON(SchedulerError, ValueError):
    """A text that is no JSON document (RFC 8259), or not a whole one.

    ``position`` counts characters from 0: of the first one that cannot stand where it stands, or of what is wrong as a
    whole (a number out of range, a name given twice); for a document that is not whole, of its end.
    """

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.position)


# --- the store's fault ------------------------------------------------------------------------------------------


class StoreError(SchedulerError):
    """The store could not do what was asked."""


class StoreClosed(StoreError):
    """The store is closed, or stopped after a failed commit."""


class Suspended(StoreClosed):
    """The scheduler has let go of the stream before its end: a later process goes on with it (``resume()``)."""


class StreamNotFound(StoreError):
    """There is no such stream (or it is not this owner's, which is the same thing to the asker)."""


class StreamExists(StoreError):
    """A stream or a plan was to be made under an id that is taken. Nothing was submitted."""


class CursorError(StoreError):
    """A cursor that is garbage, belongs to another stream, or lies in the future."""


class LogTrimmed(StoreError):
    """The records behind a cursor are gone, because the stream ended long ago; ``snapshot()`` still has its answer."""


class LogFull(StoreError):
    """A stream's log reached its size cap."""


class StreamReset(StoreError):
    """What this reader was shown has been voided by a reset, and this view cannot take it back."""
