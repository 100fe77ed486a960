"""The JSON Schemas of clients: as large and as costly as they may be.

What a client says must not keep the loop, which is everybody's, busy. Its regular expressions are refused: one of a few
characters can take years over a text of a few more, and there is no stopping it. References that multiply end by
themselves (:class:`~multi_agent_scheduler.schema.Schema`).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..errors import InvalidRequest
from ..request import Request
from ..schema import reached

__all__ = ["check_schema", "check_size", "check_sizes"]

_LARGEST: Final = 128 * 1024  # bytes of JSON
_DEEPEST: Final = 64  # objects and lists in each other: two for each level of the answer
_VALUES: Final = 1000  # of all enumerations
_PATTERNS: Final = ("pattern", "patternProperties")


def check_schema(schema: dict[str, Any]) -> None:
    """Raise InvalidRequest for a schema by which this server is not to check an answer: one that has patterns, is none,
    or is larger than :func:`check_size` lets pass."""
    check_size(schema)
    for inner in reached(schema):
        for keyword in _PATTERNS:
            if keyword in inner:
                raise InvalidRequest(
                    f"schema: {keyword} is not taken from a client, since a regular expression can keep the server "
                    "busy: say enum, or a length, and say what is wanted in the description"
                )


def check_sizes(request: Request) -> None:
    """As :func:`check_size`, for all schemas of a request: its own, and those of its tools."""
    for schema in (request.schema, *(tool.parameters for tool in request.tools)):
        if schema is not None:
            check_size(schema)


def check_size(schema: dict[str, Any]) -> None:
    """Raise InvalidRequest for a schema that is too large, too deep, or has too many values to choose from, to be made
    a grammar by a model that runs here."""
    if len(msgspec.json.encode(schema)) > _LARGEST:
        raise InvalidRequest(f"schema: it has more than {_LARGEST} bytes of JSON")
    values, level = 0, list[Any]([schema])
    for _ in range(_DEEPEST):
        values += sum(len(it["enum"]) for it in level if isinstance(it, dict) and isinstance(it.get("enum"), list))
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            break
    else:
        raise InvalidRequest(f"schema: it is nested deeper than {_DEEPEST}")
    if values > _VALUES:
        raise InvalidRequest(f"schema: its enumerations have more than {_VALUES} values")
