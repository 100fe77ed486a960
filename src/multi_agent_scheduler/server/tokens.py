"""Short-lived tokens that open one stream for reading, for those who can send no header: a browser's EventSource.

``<owner>.<expiry>.<seal>``: the owner in base64url, the expiry in seconds since 1970, and an HMAC-SHA256 over both and
the stream's id. A token stands in a URL, where a key must not.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

__all__ = ["LONGEST", "owner_of", "token"]

LONGEST: Final = 3600
"""Seconds that a token is good for at most."""


def token(secret: bytes, stream_id: str, owner: str, expiry: int) -> str:
    """A token for reading one stream until ``expiry``."""
    name = urlsafe_b64encode(owner.encode()).decode().rstrip("=")
    return f"{name}.{expiry}.{_seal(secret, stream_id, owner, expiry)}"


def owner_of(secret: bytes, said: str, stream_id: str, now: float) -> str | None:
    """Whose token for this stream it is; None if it is none, another stream's, or has expired."""
    parts = said.split(".")
    if len(said) > 1000 or len(parts) != 3 or not (parts[1].isascii() and parts[1].isdigit()):
        return None
    try:
        owner = urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)).decode()
    except (binascii.Error, ValueError):
        return None
    expiry = int(parts[1][:20])
    seal = _seal(secret, stream_id, owner, expiry)
    return owner if hmac.compare_digest(seal.encode(), parts[2].encode()) and now < expiry else None


def _seal(secret: bytes, stream_id: str, owner: str, expiry: int) -> str:
    message = f"token\n{stream_id}\n{owner}\n{expiry}".encode()
    return urlsafe_b64encode(hmac.digest(secret, message, "sha256")).decode().rstrip("=")
