"""How a server is set up."""

from __future__ import annotations

import msgspec

__all__ = ["Settings"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[server]`` table of ``mas.toml``. Times are in seconds, sizes in bytes."""

    host: str = "127.0.0.1"
    port: int = 8000
    max_body: int = 32 * 1024 * 1024
    """The largest body of a request."""
    body_timeout: float = 30.0
    """A body must have come within so many seconds."""
    heartbeat: float = 15.0
    """The longest silence of a stream."""
    retry: float = 1.0
    """How long a browser is told to wait before it connects again."""
    grace: float = 60.0
    """How long a stream that was asked for through a connection that may come back goes on without a reader."""
