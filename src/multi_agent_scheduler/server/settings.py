"""How a server is set up: the ``[server]`` table of ``mas.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..errors import InvalidConfiguration

__all__ = ["Settings", "settings_of"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times are in seconds, sizes in bytes."""

    host: str = "127.0.0.1"
    port: int = 8000
    max_connections: int = 10_000
    """More are refused with 503."""
    max_streams: int = 5_000
    """How many streams one key may read, and its owner have running, at once, if the key does not say less."""
    max_body: int = 32 * 1024 * 1024
    """The largest body of a request."""
    max_header: int = 64 * 1024
    """The largest head of a request, its path included."""
    max_message: int = 1024 * 1024
    """The largest message on a WebSocket."""
    header_timeout: float = 10.0
    """A request's head must have come within so many seconds."""
    body_timeout: float = 30.0
    """A body must have come within so many seconds."""
    keep_alive: float = 20.0
    """How long a connection may be without a request."""
    stall_timeout: float = 120.0
    """A reader that has taken nothing for so long is let go; it can come back with its cursor."""
    heartbeat: float = 15.0
    """The longest silence of a stream."""
    retry: float = 1.0
    """How long a browser is told to wait before it connects again."""
    grace: float = 60.0
    """How long a stream that was asked for through a connection that may come back goes on without a reader."""
    drain: float = 3.0
    """How long what runs may take to end in order when the server is stopped."""
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    """The names by which requests may call the server while it has no keys; ``*`` is any."""
    cors_origins: tuple[str, ...] = ()
    """Whose pages may read answers in a browser: origins such as ``https://app.example``, or ``*``."""
    compression: bool = False
    """Whether streams are compressed for clients that accept it (zstd, gzip), and WebSockets (permessage-deflate)."""
    access_log: bool = True
    """Whether each request is one line of JSON on stderr."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if type(value) is bool or not isinstance(value, int | float):
                continue
            if not 0 <= value < 2**53 or (name not in _MAY_BE_ZERO and not value):
                raise ValueError(f"{name} must be above 0, not {value!r}")
        if self.port > 65535:
            raise ValueError(f"port must be at most 65535, not {self.port}")
        for origin in self.cors_origins:
            scheme, separator, rest = origin.partition("://")
            if origin != "*" and not (separator and scheme and rest and "/" not in rest):
                raise ValueError(f"cors_origins: {origin!r} is no origin: scheme://host[:port], or *")


_MAY_BE_ZERO: Final = frozenset({"port", "grace", "drain", "retry"})


def settings_of(table: Mapping[str, Any], **given: Any) -> Settings:
    """The settings of a ``[server]`` table, and over them what is ``given`` and not None.

    Raises InvalidConfiguration, naming the setting.
    """
    merged = {**table, **{name: value for name, value in given.items() if value is not None}}
    try:
        return msgspec.convert(merged, Settings)
    except (msgspec.ValidationError, ValueError) as error:
        raise InvalidConfiguration(f"[server]: {error}") from None
