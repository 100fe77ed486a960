"""JSON (RFC 8259) as it arrives: text in, changes out; nothing is shown that the finished document can contradict."""

from __future__ import annotations

from msgspec import UNSET

from ...errors import InvalidJSON
from .embedded import EmbeddedJSON
from .folding import apply
from .parser import Change, PartialJSON, Path
from .spelling import Spelling

__all__ = ["UNSET", "Change", "EmbeddedJSON", "InvalidJSON", "PartialJSON", "Path", "Spelling", "apply"]
