"""What is known of models: one dated data file, ``models.json``."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["max_output_tokens"]


@cache
def _data() -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(Path(__file__).with_name("models.json").read_bytes())
    return data


@cache
def max_output_tokens(model: str) -> int:
    """The most tokens that a model will write; the longest name in the file that ``model`` begins with decides.

    An unknown model gets a bound that every known one accepts.
    """
    known: dict[str, int] = _data()["max_output_tokens"]
    fitting = [name for name in known if model.startswith(name)]
    if not fitting:
        return int(_data()["unknown_max_output_tokens"])
    return known[max(fitting, key=len)]
