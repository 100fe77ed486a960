"""Compression of streams, for clients that accept it where the server is told to compress.

Each piece is flushed, so that a client can read all of it at once. A context belongs to one connection and no other: in
a shared one the size of what one user gets would tell of what another got (CRIME, BREACH). With a short window each
holds tens of kilobytes.
"""

from __future__ import annotations

import importlib.util
import zlib
from abc import ABC, abstractmethod
from functools import cache

__all__ = ["Packer", "packer"]

_GZIP_WINDOW = 16 + 13  # zlib: 16 asks for gzip's frame, 13 is a window of 8 KiB
_GZIP_MEMORY = 6
_ZSTD_WINDOW = 15  # 32 KiB


class Packer(ABC):
    """One connection's compressor; ``encoding`` is its name in ``Content-Encoding``."""

    encoding: bytes

    @abstractmethod
    def pack(self, data: bytes, *, last: bool) -> bytes:
        """All of the data, compressed; behind the ``last`` nothing follows."""


class _Gzip(Packer):
    encoding = b"gzip"

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW, _GZIP_MEMORY)

    def pack(self, data: bytes, *, last: bool) -> bytes:
        compressor = self._compressor
        return compressor.compress(data) + compressor.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)


class _Zstd(Packer):
    encoding = b"zstd"

    def __init__(self) -> None:
        import zstandard

        parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=_ZSTD_WINDOW)
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        self._flush, self._finish = zstandard.COMPRESSOBJ_FLUSH_BLOCK, zstandard.COMPRESSOBJ_FLUSH_FINISH

    def pack(self, data: bytes, *, last: bool) -> bytes:
        compressor = self._compressor
        return compressor.compress(data) + compressor.flush(self._finish if last else self._flush)


def packer(accept_encoding: str) -> Packer | None:
    """A new compressor of the kind that a client likes (RFC 9110, section 12.5.3), zstd before gzip where it takes
    both; None if it takes neither."""
    accepted: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        name, _, parameters = part.partition(";")
        accepted[name.strip()] = _weight(parameters.strip())
    others = accepted.get("*", 0.0)
    if _zstd_is_there() and accepted.get("zstd", others):
        return _Zstd()
    return _Gzip() if accepted.get("gzip", others) else None


def _weight(parameters: str) -> float:
    if not parameters.startswith("q="):
        return 1.0
    try:
        return float(parameters[2:])
    except ValueError:
        return 0.0


@cache
def _zstd_is_there() -> bool:
    return importlib.util.find_spec("zstandard") is not None
