"""What an answer says that is no success, before a face gives it its shape.

The codes are those of :class:`~multi_agent_scheduler.errors.ErrorInfo`, so that a face has one vocabulary for what this
server refuses and for what a provider did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..errors import (
    CallerError,
    CursorError,
    ErrorInfo,
    LogTrimmed,
    PlanError,
    RequestOverLimit,
    SchedulerError,
    StoreError,
    StreamNotFound,
    UnknownAgent,
)

__all__ = ["Problem", "problem_of"]

Headers = Sequence[tuple[bytes, bytes]]

_CODES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "budget_exceeded",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    410: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "internal_error",
    503: "overloaded_error",
}


class Problem(Exception):
    """A request that is not answered with a success. ``detail`` is a sentence for the one who asked.

    ``headers`` are sent with it. ``code`` follows from ``status`` unless it is given; any other 4xx is an invalid
    request.
    """

    def __init__(
        self, status: int, detail: str, *, code: str | None = None, headers: Headers = (), snapshot: str | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code or _CODES.get(status, "invalid_request_error")
        self.headers = headers
        self.snapshot = snapshot
        """The path at which the stream is told as it stands, where its events are gone."""

    @property
    def info(self) -> ErrorInfo:
        """The same as an agent's failure would be told."""
        return ErrorInfo(self.code, self.detail, status=self.status, retryable=self.status in (408, 429, 503))


_LONGEST: Final = 1000  # characters

_STATUSES: Final[tuple[tuple[type[SchedulerError], int], ...]] = (
    (StreamNotFound, 404),
    (LogTrimmed, 410),
    (CursorError, 400),
    (UnknownAgent, 404),
    (PlanError, 409),
    (RequestOverLimit, 400),
    (CallerError, 400),
    (StoreError, 503),
)


def problem_of(error: SchedulerError) -> Problem:
    """The problem for one of this package's errors; a caller's mistake is told as it is, but for what is too long."""
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            detail = _bounded(str(error)) if status < 500 else "the store cannot do its work at the moment"
            return Problem(status, detail, headers=() if status < 500 else ((b"retry-after", b"1"),))
    return Problem(500, "this is a bug of the server: its log has the details")


def _bounded(sentence: str) -> str:
    """An error that shows a value shows all of it, which may be megabytes of what a client sent."""
    return sentence if len(sentence) <= _LONGEST else f"{sentence[:_LONGEST]} ..."
