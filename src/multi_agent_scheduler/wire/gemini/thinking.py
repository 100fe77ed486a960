"""How hard a model shall think: ``reasoning_effort`` and Gemini's thinkingConfig.

Gemini 3 takes a level; earlier models take a budget of tokens. The budgets are those of Google's own table for
clients of OpenAI's protocol (https://ai.google.dev/gemini-api/docs/openai#thinking).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ...errors import InvalidRequest

__all__ = ["read_effort", "thinking_config"]

_LEVELS: Final = ("minimal", "low", "medium", "high", "xhigh")
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
_BY_BUDGET: Final = frozenset({"gemini-2", "gemini-1"})
_FAMILY: Final = re.compile(r"gemini-\d")


def thinking_config(effort: str, model: str) -> dict[str, Any]:
    """The thinkingConfig for an effort: ``none``, ``minimal``, ``low``, ``medium``, ``high``, ``xhigh`` (levels only).

    The thoughts are asked for as well, unless the effort is ``none``. What a model does not offer, Google refuses.
    """
    if effort == "none":
        return {"thinkingBudget": 0}
    family = _FAMILY.search(model)
    if family is not None and family[0] in _BY_BUDGET:
        if effort in _BUDGETS:
            return {"thinkingBudget": _BUDGETS[effort], "includeThoughts": True}
    elif effort in _LEVELS:
        return {"thinkingLevel": effort.upper(), "includeThoughts": True}
    known = ", ".join(["none", *_BUDGETS] if family is not None and family[0] in _BY_BUDGET else ["none", *_LEVELS])
    raise InvalidRequest(f"reasoning_effort: {model} takes {known}, not {effort!r}")


def read_effort(config: Mapping[str, Any]) -> str | None:
    """The effort that makes exactly this thinkingConfig; None if no effort does."""
    if config == {"thinkingBudget": 0}:
        return "none"
    if config.get("includeThoughts") is not True or len(config) != 2:
        return None
    level, budget = config.get("thinkingLevel"), config.get("thinkingBudget")
    if isinstance(level, str) and level.lower() in _LEVELS:
        return level.lower()
    if isinstance(budget, int):
        return next((name for name, size in reversed(_BUDGETS.items()) if size == budget), None)
    return None
