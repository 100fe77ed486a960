"""The store owns queue, leases and logs. Every transition is one atomic step."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from ..errors import InvalidConfiguration, InvalidOption
from .base import Store
from .memory import MemoryStore

if TYPE_CHECKING:
    from typing import Any

    from .sqlite import SQLiteStore

__all__ = ["MemoryStore", "SQLiteStore", "Store", "opened"]

_SETTINGS = {"durability": str, "max_log_bytes": int, "keep_logs": float, "keep_seconds": float, "keep_bytes": int}


def __getattr__(name: str) -> Any:  # PEP 562: what only durable stores need is loaded for them only
    if name == "SQLiteStore":
        from .sqlite import SQLiteStore

        return SQLiteStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def opened(url: str) -> Store:
    """The store that a URL names; its ``open()`` is still to be awaited.

    ``memory://``, or ``sqlite:///FILE`` (a fourth slash begins an absolute path). Settings of
    :class:`~multi_agent_scheduler.store.sqlite.SQLiteStore` may follow: ``sqlite:///mas.db?keep_seconds=86400``. Raises
    InvalidConfiguration for anything else.
    """
    if url == "memory://":
        return MemoryStore()
    if not isinstance(url, str):
        raise InvalidConfiguration(f"store must be 'memory://', 'sqlite:///FILE' or a Store, not {url!r}")
    path, _, query = url.removeprefix("sqlite:///").partition("?")
    if not url.startswith("sqlite:///") or not path:
        raise InvalidConfiguration(f"store must be 'memory://' or 'sqlite:///FILE', not {url!r}")
    settings: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _SETTINGS:
            known = ", ".join(_SETTINGS)
            raise InvalidConfiguration(f"store {url!r}: unknown setting {name!r}; the settings are {known}")
        try:
            settings[name] = _SETTINGS[name](value)
        except ValueError:
            raise InvalidConfiguration(f"store {url!r}: {name} must be a number, not {value!r}") from None
    try:
        store: Store = __getattr__("SQLiteStore")(path, **settings)
    except InvalidOption as error:
        raise InvalidConfiguration(f"store {url!r}: {error}") from None
    return store
