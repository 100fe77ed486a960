"""What a failure is in HTTP, where there is still a status to be chosen."""

from __future__ import annotations

import math
from typing import Final

from ...errors import ErrorInfo, agent_error
from ...records import Cancelled, Failed, Interrupted, Record, Skipped
from ..face import Headers

__all__ = ["failure_of", "headers_of", "sentence", "status_of"]

# A provider's refusal of our key is no fault of the client's, whose own key was good: the gateway's upstream failed.
_STATUSES: Final = {
    "budget_exceeded": 402,
    "cancelled": 503,
    "content_filter": 400,
    "insufficient_quota": 429,
    "invalid_request_error": 400,
    "not_found_error": 404,
    "overloaded_error": 503,
    "rate_limit_error": 429,
    "request_too_large": 413,
    "timeout_error": 504,
}
_AS_THEY_ARE: Final = frozenset({400, 404, 413, 422, 429, 503, 504, 529})


def failure_of(last: Record) -> ErrorInfo | None:
    """Why a stream that ended so has no answer; None if it has one."""
    match last:
        case Failed(error=error) | Interrupted(error=error):
            return error
        case Cancelled(reason=reason):
            return ErrorInfo("cancelled", f"the answer was stopped{': ' if reason else ''}{reason}")
        case Skipped(reason=reason):
            return ErrorInfo("skipped", reason or "a task that this one depends on did not succeed")
    return None


def status_of(error: ErrorInfo) -> int:
    """The status: the provider's where it means the same to our client, else that of the code, else 502."""
    if error.status in _AS_THEY_ARE:
        return error.status
    return _STATUSES.get(error.code, 502)


def headers_of(error: ErrorInfo) -> Headers:
    """When to try again, and whether (``x-should-retry``, which the official SDKs obey)."""
    headers = [(b"x-should-retry", b"true" if error.retryable else b"false")]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after)))
        headers.append((b"retry-after-ms", b"%d" % math.ceil(error.retry_after * 1000)))
    return headers


def sentence(error: ErrorInfo) -> str:
    """What the client is told: our sentence, and the provider's, which is bounded and without keys."""
    return str(agent_error(error))
