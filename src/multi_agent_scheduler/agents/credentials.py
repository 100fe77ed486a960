"""Keys that do not show themselves, and headers that cannot be forged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..errors import InvalidConfiguration

__all__ = ["Headers", "Secret", "checked_headers", "secrets_of"]


class Secret:
    """A key that does not show itself: ``repr``, ``str``, logs and errors have stars."""

    __slots__ = ("_value",)

    def __init__(self, value: str, source: str) -> None:
        if not isinstance(value, str):
            raise InvalidConfiguration(f"{source} must be a string, not {type(value).__name__}")
        if not value.isascii() or not value.isprintable() or " " in value:
            raise InvalidConfiguration(
                f"{source} is malformed: a key has no spaces, line ends or characters outside ASCII"
            )
        self._value = value

    def reveal(self) -> str:
        """The key itself, for a request's header."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    def __reduce__(self) -> str:
        raise TypeError("a Secret cannot be pickled")


_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_OURS: Final = frozenset({
    "accept-encoding", "connection", "content-length", "content-type", "expect", "host", "te", "transfer-encoding",
    "upgrade",
})  # fmt: skip


class Headers(dict[str, str]):
    """Checked headers, names in lower case; ``repr`` shows the names only, for values may be secret."""

    def __repr__(self) -> str:
        return f"Headers({', '.join(sorted(self))})"


def secrets_of(headers: Headers) -> tuple[Secret, ...]:
    """The keys among headers, by their names."""
    telling = ("auth", "key", "token", "secret", "cookie")
    return tuple(
        Secret(word, name)
        for name, value in headers.items()
        if any(part in name for part in telling)
        for word in value.split()[-1:]
        if word.isascii() and word.isprintable()
    )


def checked_headers(headers: Mapping[str, str]) -> Headers:
    """The headers with names in lower case.

    Raises :class:`InvalidConfiguration` for what is no header (RFC 9110, 5.5 and 5.6.2), and for those that describe
    the message or the connection: they are not the caller's to set. The text shows no values, which may be secret.
    """
    if not isinstance(headers, Mapping):
        raise InvalidConfiguration(f"headers must be a mapping of names to values, not {type(headers).__name__}")
    checked = Headers()
    for name, value in headers.items():
        if not isinstance(name, str) or not name or not _TOKEN.issuperset(name):
            raise InvalidConfiguration(f"headers: {name!r} is not the name of a header")
        if name.lower() in _OURS:
            raise InvalidConfiguration(f"headers: {name} is set by the connection itself")
        if not isinstance(value, str) or any(char in value for char in "\r\n\0"):
            raise InvalidConfiguration(f"headers: the value of {name} must be a string on one line")
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise InvalidConfiguration(f"headers: the value of {name} has characters outside Latin-1") from None
        checked[name.lower()] = value.strip()
    return checked
