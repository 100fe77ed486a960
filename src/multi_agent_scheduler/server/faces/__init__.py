"""The protocols of others in which streams can be asked for and read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..routing import Route

__all__ = ["ROUTES"]

ROUTES: Final[Sequence[Route]] = ()
