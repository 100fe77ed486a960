"""What a provider's failure means: from statuses and error objects to an ErrorInfo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..errors import ErrorInfo
from .redaction import redact

__all__ = ["classify", "from_status", "moment", "retry_after"]

# (code of ours, whether the same request may succeed later, our sentence)
_BY_STATUS: Final[dict[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "server_error",
    413: "request_too_large",
    415: "invalid_request_error",
    422: "invalid_request_error",
    424: "server_error",
    429: "rate_limit_error",
    502: "server_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

SENTENCES: Final[dict[str, str]] = {
    "invalid_request_error": "the provider refused the request as invalid",
    "not_found_error": "the provider does not know this model or address",
    "request_too_large": "the provider refused the request as too large",
    "authentication_error": "the provider did not accept the key",
    "permission_error": "the key is not allowed to do this",
    "rate_limit_error": "the provider's rate limit is reached",
    "insufficient_quota": "the provider's quota or credit is used up",
    "overloaded_error": "the provider is overloaded",
    "server_error": "the provider failed",
    "timeout_error": "the provider timed out",
    "content_filter": "the provider blocked the content",
    "protocol_error": "the provider sent something that its protocol does not allow",
}

RETRYABLE: Final = frozenset(
    {"rate_limit_error", "overloaded_error", "server_error", "timeout_error", "connection_error"}
)

# What providers call their errors, in error objects and error events.
_BY_NAME: Final[dict[str, str]] = {
    "api_error": "server_error",
    "api_connection_error": "server_error",
    "authentication_error": "authentication_error",
    "billing_error": "insufficient_quota",
    "bad_gateway": "server_error",
    "content_filter": "content_filter",
    "context_length_exceeded": "invalid_request_error",
    "deadline_exceeded": "timeout_error",
    "failed_precondition": "invalid_request_error",
    "insufficient_quota": "insufficient_quota",
    "internal": "server_error",
    "internal_error": "server_error",
    "internal_server_error": "server_error",
    "invalid_api_key": "authentication_error",
    "invalid_argument": "invalid_request_error",
    "invalid_prompt": "invalid_request_error",
    "invalid_request_error": "invalid_request_error",
    "model_not_found": "not_found_error",
    "not_found": "not_found_error",
    "not_found_error": "not_found_error",
    "overloaded": "overloaded_error",
    "overloaded_error": "overloaded_error",
    "permission_denied": "permission_error",
    "permission_error": "permission_error",
    "rate_limit_error": "rate_limit_error",
    "rate_limit_exceeded": "rate_limit_error",
    "request_too_large": "request_too_large",
    "requests": "rate_limit_error",
    "resource_exhausted": "rate_limit_error",
    "server_error": "server_error",
    "service_unavailable": "overloaded_error",
    "timeout": "timeout_error",
    "timeout_error": "timeout_error",
    "tokens": "rate_limit_error",
    "too_many_requests": "rate_limit_error",
    "unauthenticated": "authentication_error",
    "unavailable": "overloaded_error",
}


def from_status(status: int) -> str:
    """This project's code for an HTTP status."""
    known = _BY_STATUS.get(status)
    if known is not None:
        return known
    return "server_error" if status >= 500 else "invalid_request_error" if status >= 400 else "protocol_error"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from ``retry-after-ms`` or ``retry-after`` (RFC 9110, 10.2.3); a date is taken by the answer's own clock.

    ``headers`` has lower-case names. Negative and unreadable values give None, and so does a date without ``date``.
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            value = float(headers.get(name, "")) * scale
        except ValueError:
            continue
        if 0 <= value < 1e9:
            return value
    then, now = moment(headers.get("retry-after")), moment(headers.get("date"))
    return None if then is None or now is None else max(0.0, then - now)


def moment(date: str | None) -> float | None:
    """Seconds since 1970 for a date of HTTP's (RFC 9110, 5.6.7)."""
    if not date or "," not in date:
        return None
    from calendar import timegm  # only few need it
    from email.utils import parsedate_to_datetime

    try:
        return float(timegm(parsedate_to_datetime(date).utctimetuple()))
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def classify(
    *, status: int | None = None, names: tuple[Any, ...] = (), message: Any = None, request_id: str | None = None,
    after: float | None = None,
) -> ErrorInfo:  # fmt: skip
    """An :class:`ErrorInfo` from what a provider said: HTTP status, its own code or type words, its message.

    The first of ``names`` that is known decides; then the status (a number among ``names`` counts as one).
    """
    code = provider_code = None
    for name in names:
        if name is None or name == "":
            continue
        if isinstance(name, int) or (isinstance(name, str) and name.isdigit()):
            status = status if status is not None and status >= 400 else int(name)
            continue
        if provider_code is None:
            provider_code = redact(str(name))
        if code is None:
            code = _BY_NAME.get(str(name).lower())
    if code is None:
        code = from_status(status) if status is not None and status >= 400 else "server_error"
    return ErrorInfo(
        code=code,
        message=SENTENCES.get(code, SENTENCES["server_error"]),
        status=status if status is not None and 100 <= status <= 999 else None,
        provider_code=provider_code,
        detail=redact(message) if isinstance(message, str) and message else None,
        request_id=redact(request_id) if request_id else None,
        retry_after=after,
        retryable=code in RETRYABLE,
    )
