"""One line of JSON for each request, on the logger ``multi_agent_scheduler.access``.

Keys and tokens are in none of it: headers and the query are left out. JSON escapes what a client may have put into a
path, so that a line is one line.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from .exchange import Exchange

__all__ = ["LOGGER", "write"]

LOGGER: Final = logging.getLogger("multi_agent_scheduler.access")

_PATH_CHARACTERS: Final = 500
_encoder: Final = msgspec.json.Encoder()


class _Line(msgspec.Struct):
    time: float
    request_id: str
    client: str
    owner: str
    method: str
    path: str
    status: int
    bytes: int
    seconds: float


def write(exchange: Exchange, seconds: float) -> None:
    """Tell of a request that is over. ``status`` is 0 where the client left before there was one."""
    if not LOGGER.isEnabledFor(logging.INFO):
        return
    client = exchange.scope.get("client")
    line = _Line(
        time=round(time.time(), 3),
        request_id=exchange.request_id,
        client=client[0] if client else "",
        owner=exchange.owner,
        method=exchange.method,
        path=exchange.path[:_PATH_CHARACTERS],
        status=exchange.status,
        bytes=exchange.written,
        seconds=round(seconds, 6),
    )
    LOGGER.info("%s", _encoder.encode(line).decode())
