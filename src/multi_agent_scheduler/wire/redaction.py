"""What must not be shown taken out of texts that are not ours: keys that were sent, and what looks like one."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

import msgspec

from ..errors import ErrorInfo

__all__ = ["reason_of", "redact", "scrubbed", "without"]

_LIMIT: Final = 500
_REDACTED: Final = "[redacted]"
# Keys as providers write them, bearer headers, and key= query parameters, wherever a provider echoes them.
_SECRET: Final = re.compile(
    r"(?:sk|pk|rk|gsk|xai|key|AIza|ya29)[-_.][\w.*-]{6,}|AIza[\w-]{10,}|(?i:bearer\s+)\S+|(?i:(?:api[-_]?)?key[=:]\s*)\S+"
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# What may be a token of any kind: long, with a digit in it.
_OPAQUE: Final = re.compile(r"(?=[^\s]*[0-9])[\w+/=.~:-]{16,}")

_SHORTEST: Final = 6  # what is shorter is no key, and would be found inside ordinary words
_PART: Final = 3  # the same for the begin or the end of a key where only that is left


def redact(text: str) -> str:
    """The text without anything that looks like a key, on one line, at most 500 characters."""
    return _SECRET.sub(_REDACTED, _CONTROL.sub(" ", text[: 4 * _LIMIT])).strip()[:_LIMIT]


def reason_of(error: Exception) -> str:
    """The text of an exception that is not ours, without anything that might be a token."""
    return _OPAQUE.sub(_REDACTED, redact(str(error)))


def scrubbed(info: ErrorInfo, keys: Collection[str]) -> ErrorInfo:
    """The error without the keys that were sent, in case the provider repeats one."""
    changed = {}
    for name in ("message", "detail", "provider_code", "request_id"):
        value = getattr(info, name)
        if value is not None and (clean := without(value, keys)) != value:
            changed[name] = clean
    return msgspec.structs.replace(info, **changed) if changed else info


def without(text: str, keys: Collection[str]) -> str:
    """The text without the keys, and without what is left of one that was cut."""
    for key in keys:
        if len(key) >= _SHORTEST:
            text = _stripped(text.replace(key, _REDACTED), key)
    return text


def _stripped(text: str, key: str) -> str:
    # By its looks a part of the key may have been taken out before, and a text is cut at its limit, wherever that is.
    for length in range(len(key) - 1, _PART - 1, -1):
        text = text.replace(_REDACTED + key[-length:], _REDACTED)
        if text.endswith(key[:length]):
            text = text[:-length] + _REDACTED
    return text
