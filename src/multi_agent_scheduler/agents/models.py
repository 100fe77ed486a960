"""What is known of models: one dated data file, ``models.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from ..scheduling.budget import Price

__all__ = ["max_output_tokens", "price"]

_DATED: Final = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2}|latest)$")  # how providers name the version of a model


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


@cache
def _prices() -> dict[str, Price]:
    return {
        name: msgspec.convert(fields, Price)
        for source in _data()["prices"]
        for name, fields in source["models"].items()
    }


def price(model: str | None, known: Mapping[str, Price] | None = None) -> Price | None:
    """What a model costs: by ``known``, the user's own prices, or by the file; None if neither has it.

    A name must fit as a whole, but for the date of its version: a model that only begins like another has a price of
    its own, and one that is not known has none.
    """
    if model is None:
        return None
    for name in (model, _DATED.sub("", model)):
        found = (known or {}).get(name) or _prices().get(name)
        if found is not None:
            return found
    return None
