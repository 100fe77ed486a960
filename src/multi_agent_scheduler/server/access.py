"""Who asks, and whether they may: keys, tokens, names of hosts, and pages of other origins.

Without keys everybody on this machine may do everything, and a web page must not become one of them: a request has to
name this machine as its host (a page's own name that was pointed here, DNS rebinding, does not), and one that a page of
another origin made is refused.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from . import tokens
from .face import Headers
from .keys import Key, KeyLimits, Keys
from .problem import Problem
from .quota import Meter, Quota
from .settings import Settings

__all__ = ["NOBODY", "REVOKED", "Access", "Caller"]

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_CHALLENGE: Final = ((b"www-authenticate", b"Bearer"),)


class Caller:
    """Who asks: ``owner`` is whose streams there are for them. ``quota`` counts what their key uses."""

    __slots__ = ("checked", "key", "owner", "quota")

    def __init__(self, owner: str, quota: Quota, key: Key | None = None) -> None:
        self.owner = owner
        self.quota = quota
        self.key = key
        self.checked = -1
        """The state of the keys (:attr:`~.keys.Keys.changes`) by which they were let in."""


REVOKED: Final = Problem(401, "this key was revoked")
"""What is told to those who are here when that happens."""

NOBODY: Final = Caller("", Quota(KeyLimits()))
"""Who has not said who they are, on a route that does not ask."""


class Access:
    """Knows the callers. ``clock`` is the time of day in seconds."""

    def __init__(self, keys: Keys, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._settings = settings
        self._clock = clock
        self._anybody = Caller("", Quota(KeyLimits()))
        self._quotas: dict[str, Quota] = {}

    # --- callers --------------------------------------------------------------------------------------------------

    def caller(self, headers: Mapping[bytes, bytes], token: str = "", stream_id: str = "") -> Caller:
        """Who sends these headers; or, with a ``token``, who may read ``stream_id`` with it. Raises Problem 401, 403.

        ``token`` is that of the query, where the route takes one.
        """
        keys = self._keys
        if token:
            owner = tokens.owner_of(keys.secret, token, stream_id, self._clock())
            if owner is None or (keys.required and not any(key.owner == owner for key in keys.all())):
                raise Problem(401, "this token does not open this stream, or no longer: get a new one")
            return Caller(owner, self._quota_of_owner(owner))
        if not keys.required:
            self._check_host(headers)
            return self._anybody
        said = _key(headers)
        if not said:
            raise Problem(401, "a key is needed: Authorization: Bearer KEY, or x-api-key", headers=_CHALLENGE)
        key = keys.check(said)
        if key is None:
            raise Problem(401, "this key is unknown, or was revoked", headers=_CHALLENGE)
        return Caller(key.owner, self._quota(key), key)

    def token(self, stream_id: str, owner: str, seconds: int) -> tuple[str, int]:
        """A token for reading one stream, and when it expires (seconds since 1970)."""
        expiry = int(self._clock()) + seconds
        return tokens.token(self._keys.secret, stream_id, owner, expiry), expiry

    def meter(self, owner: str) -> Meter | None:
        """What counts the tokens of a stream of this owner, for each of the owner's keys that may not use any number;
        None if there is no such key."""
        quotas = [self._quota(key) for key in self._keys.metered(owner)]
        return Meter(owner, quotas, asyncio.get_running_loop().time) if quotas else None

    def stands(self, caller: Caller) -> bool:
        """Whether a caller who was admitted may still be here: the key was not revoked, and there is one if one is
        needed. Its limits are from now on those that it has now."""
        keys = self._keys
        if caller.checked == keys.changes:
            return True
        if caller.key is None:  # with a token, or before there were keys
            stands = not keys.required or any(key.owner == caller.owner for key in keys.all())
        else:
            found = keys.current(caller.key)
            if stands := found is not None:
                caller.key = found
                caller.quota.hold_to(found.limits)
        if stands:
            caller.checked = keys.changes
        return stands

    def _quota(self, key: Key) -> Quota:
        quota = self._quotas.get(key.digest)
        if quota is None:
            known = {key.digest for key in self._keys.all()}
            self._quotas = {digest: quota for digest, quota in self._quotas.items() if digest in known}
            quota = self._quotas[key.digest] = Quota(key.limits)
        quota.hold_to(key.limits)
        return quota

    def _quota_of_owner(self, owner: str) -> Quota:
        key = next((key for key in self._keys.all() if key.owner == owner), None)
        return self._anybody.quota if key is None else self._quota(key)

    # --- browsers -------------------------------------------------------------------------------------------------

    def check_origin(self, method: str, headers: Mapping[bytes, bytes]) -> None:
        """Raise Problem 403 for what a page of another origin wants to change; a WebSocket counts as a change."""
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin or method in _SAFE or self._allows(origin):
            return
        if urlsplit(origin).netloc.lower() != headers.get(b"host", b"").decode("latin-1").lower():
            raise Problem(
                403, "pages of this origin may not use this server: cors_origins in [server] names those that may"
            )

    def cors(self, headers: Mapping[bytes, bytes]) -> Headers:
        """What lets a page of an allowed origin read the answer."""
        if not self._settings.cors_origins:
            return ()
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin or not self._allows(origin):
            return _VARY
        return (
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", _EXPOSED),
            *_VARY,
        )

    def preflight(self, headers: Mapping[bytes, bytes], methods: str) -> Headers:
        """The answer to a browser that asks before it sends, beside :meth:`cors`. Raises Problem 403 for an origin that
        is not allowed."""
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not self._allows(origin):
            raise Problem(
                403, "pages of other origins may not use this server: cors_origins in [server] names those that may"
            )
        asked = headers.get(b"access-control-request-headers", b"")
        return (
            (b"access-control-allow-methods", methods.encode()),
            (b"access-control-allow-headers", asked if _FIELDS.fullmatch(asked) else b"content-type"),
            (b"access-control-max-age", b"600"),
        )

    def _allows(self, origin: str) -> bool:
        origins = self._settings.cors_origins
        return origin in origins or "*" in origins

    def _check_host(self, headers: Mapping[bytes, bytes]) -> None:
        allowed = self._settings.hosts
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if name not in allowed and name != self._settings.host and "*" not in allowed:
            raise Problem(
                403, "without keys only requests to this machine's own name (localhost, 127.0.0.1) are answered"
            )


_FIELDS: Final = re.compile(rb"[A-Za-z0-9_, -]{1,2000}")
_VARY: Final = ((b"vary", b"origin"),)
_EXPOSED: Final = b"x-request-id, retry-after, ratelimit, ratelimit-policy"


def _key(headers: Mapping[bytes, bytes]) -> str:
    scheme, _, rest = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer" and rest.strip():
        return rest.strip()
    return headers.get(b"x-api-key", b"").decode("latin-1").strip()
