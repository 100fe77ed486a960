"""API keys: a small file beside the store, which holds no key, only what a key hashes to.

Keys are random (256 bits), so a plain SHA-256 of the whole is enough, and no slow hash is needed. The file is replaced
atomically and read again when it has changed: a key made by ``mas keys create`` works while the server runs, and one
that was revoked works no more.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from ..errors import InvalidConfiguration, InvalidOption
from ..views.pacing import parse_pace

__all__ = ["Key", "KeyLimits", "Keys"]

_PREFIX: Final = "mas_"
_NAME_CHARACTERS: Final = 64


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a key may do; None is no limit. ``cost`` is in US dollars; ``streams`` are those that its owner has
    running, and those that it reads, at once; ``pace`` ("50/s") is how fast it may read."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    cost: float | None = None
    streams: int | None = None
    pace: str | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute", "cost", "streams"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidOption(f"{name} must be above 0, not {value!r}")
        if self.pace is not None:
            parse_pace(self.pace)


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key: ``owner`` is whose streams are made and read with it, ``created`` a Unix time."""

    name: str
    owner: str
    digest: str
    created: float
    limits: KeyLimits = KeyLimits()


class _File(msgspec.Struct, kw_only=True):
    version: int = 1
    secret: str
    """What signs tokens and names streams, in hexadecimal."""
    keys: list[Key] | None = None
    """None until the first key is made: from then on one is needed, though all may have been revoked."""


class Keys:
    """The keys of the file ``path``. A file that is not there is a server without keys; ``path`` None is one that never
    has any, with a secret of its own."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._by_digest: dict[str, Key] = {}
        self._metered: dict[str, list[Key]] = {}  # by owner
        self._secret = b""
        self._required = False
        self._changes = 0

    @property
    def required(self) -> bool:
        """Whether a request needs a key. Once it did, it does for as long as this process lives."""
        self._refresh()
        return self._required

    @property
    def secret(self) -> bytes:
        """What signs tokens and names streams; the same after a restart. Made, and kept, if there is none yet."""
        self._refresh()
        if not self._secret:
            if self.path is None:
                self._secret = os.urandom(32)
            else:
                self._write(_File(secret=secrets.token_hex(32)))
        return self._secret

    def check(self, key: str) -> Key | None:
        """The key that this is; None if it is none."""
        self._refresh()
        digest = _digest(key)
        found = self._by_digest.get(digest)
        return found if found is not None and hmac.compare_digest(found.digest, digest) else None

    def current(self, key: Key) -> Key | None:
        """This key, which was checked before, as it is now; None if it was revoked since."""
        self._refresh()
        return self._by_digest.get(key.digest)

    @property
    def changes(self) -> int:
        """How often the keys were seen to have changed."""
        self._refresh()
        return self._changes

    def all(self) -> list[Key]:
        """Every key, in the order in which they were made."""
        self._refresh()
        return list(self._by_digest.values())

    def metered(self, owner: str) -> Sequence[Key]:
        """An owner's keys that may not use any number of tokens, as they were when the file was last looked at."""
        return self._metered.get(owner, ())

    def create(self, name: str, *, owner: str | None = None, limits: KeyLimits | None = None) -> str:
        """Make a key and give it out, once: it is not kept. Raises InvalidOption if the name is taken or cannot be."""
        for what, said in (("the name of a key", name), ("an owner", owner or name)):
            if not said or len(said) > _NAME_CHARACTERS or not said.isprintable() or said != said.strip():
                raise InvalidOption(f"{what} has 1 to {_NAME_CHARACTERS} printable characters, not {said!r}")
        file = self._read() or _File(secret=secrets.token_hex(32))
        keys = file.keys or []
        if any(key.name == name for key in keys):
            raise InvalidOption(f"there is a key {name!r} already: revoke it, or choose another name")
        made = _PREFIX + secrets.token_urlsafe(32)
        key = Key(
            name=name, owner=owner or name, digest=_digest(made), created=time.time(), limits=limits or KeyLimits()
        )
        file.keys = [*keys, key]
        self._write(file)
        return made

    def revoke(self, name: str) -> None:
        """Make a key worthless, at once. Raises InvalidOption if there is none of this name."""
        file = self._read()
        keys = [] if file is None or file.keys is None else file.keys
        if file is None or all(key.name != name for key in keys):
            raise InvalidOption(f"there is no key {name!r}; mas keys list names them")
        file.keys = [key for key in keys if key.name != name]
        self._write(file)

    # --- the file -------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        if self.path is None:
            return
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            seen = None
        else:
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        if seen != self._seen:
            self._seen = seen
            self._take(self._read())

    def _take(self, file: _File | None) -> None:
        keys = None if file is None else file.keys
        self._changes += 1
        self._by_digest = {key.digest: key for key in keys or ()}
        self._metered = {}
        for key in keys or ():
            if key.limits.tokens_per_minute is not None:
                self._metered.setdefault(key.owner, []).append(key)
        self._required = self._required or keys is not None
        if file is not None:
            self._secret = bytes.fromhex(file.secret)

    def _read(self) -> _File | None:
        if self.path is None:
            return None
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidConfiguration(f"{self.path} cannot be read: {error.strerror}") from None
        try:
            file = msgspec.json.decode(data, type=_File)
            bytes.fromhex(file.secret)
        except (msgspec.DecodeError, ValueError) as error:
            raise InvalidConfiguration(f"{self.path} is no file of keys: {error}") from None
        return file

    def _write(self, file: _File) -> None:
        if self.path is None:
            raise InvalidOption("keys are kept beside a store in a file, and this one is in memory")
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as out:
                out.write(msgspec.json.format(msgspec.json.encode(file), indent=1))
                out.flush()
                os.fsync(out.fileno())
            os.replace(beside, self.path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        self._seen = None
        self._refresh()


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
