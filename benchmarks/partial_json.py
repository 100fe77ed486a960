"""JSON that arrives in pieces of four characters: what the changes cost, and the value after each piece."""

from __future__ import annotations

import gc
import json
import time
import tracemalloc
from collections.abc import Callable
from importlib.util import find_spec
from typing import Final

from multi_agent_scheduler.schema import Schema
from multi_agent_scheduler.views.objects import Folding
from multi_agent_scheduler.wire.partial_json import PartialJSON

from .figures import Budget, Report, Row, median
from .rounds import Setting, turns

__all__ = ["partial_json"]

_PIECE: Final = 4
_STEP: Final = {"text": 'Stir "well" and wait until it has cooled.\n', "minutes": 12, "hot": True, "weight": 0.25}
_STEP_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "minLength": 1},
        "minutes": {"type": "integer", "minimum": 0},
        "hot": {"type": "boolean"},
        "weight": {"type": "number"},
    },
    "required": ["text", "minutes"],
}
_SCHEMA: Final = {"type": "object", "properties": {"steps": {"type": "array", "items": _STEP_SCHEMA}}}

Work = Callable[[list[str]], object]


def _records(size: int) -> str:
    one = len(json.dumps(_STEP)) + 2
    return json.dumps({"title": "Pancakes", "steps": [_STEP] * max(1, size // one)})


_SHAPES: Final[dict[str, Callable[[int], str]]] = {
    "records": _records,
    "one string": lambda size: json.dumps("a sentence of words, " * (size // 21)),
    "escapes": lambda size: json.dumps("é\n" * (size // 8)),
    "small numbers": lambda size: "[" + "7," * (size // 2) + "7]",
    "wide object": lambda size: json.dumps({f"name-{number}": number for number in range(size // 20)}),
    "deep items": lambda size: "[" + ",".join(["[" * 126 + "7" + "]" * 126] * max(1, size // 254)) + "]",
    "100 deep": lambda size: "[" * 100 + '{"a":1},' * (size // 8) + "1" + "]" * 100,
}


def _changes(pieces: list[str]) -> object:
    parser = PartialJSON()
    for piece in pieces:
        parser.feed(piece)
    return parser.close()


def _values(pieces: list[str]) -> object:
    parser = PartialJSON()
    for piece in pieces:
        parser.feed(piece)
        parser.value  # noqa: B018 - it is made when it is asked for
    return parser.close()


def _checked(pieces: list[str]) -> object:
    folding = Folding(Schema.of(_SCHEMA))
    for piece in pieces:
        folding.feed(piece)
    return folding.close()


def _jiter(pieces: list[str]) -> object:
    from jiter import from_json

    text, value = b"", None
    for piece in pieces:
        text += piece.encode()
        value = from_json(text, partial_mode="trailing-strings")
    return value


def _partial_json_parser(pieces: list[str]) -> object:
    from partial_json_parser import loads

    text, value = "", None
    for piece in pieces:
        text += piece
        value = loads(text)
    return value


_OURS: Final[dict[str, Work]] = {
    "changes": _changes,
    "changes, checked against a schema": _checked,
    "a value after each piece": _values,
}
_PEERS: Final[dict[str, tuple[str, Work]]] = {
    "jiter, a value after each piece": ("jiter", _jiter),
    "partial-json-parser, the same": ("partial_json_parser", _partial_json_parser),
}


def _pieces(text: str) -> list[str]:
    return [text[place : place + _PIECE] for place in range(0, len(text), _PIECE)]


def _cost(work: Work, pieces: list[str]) -> float:
    """CPU microseconds a piece."""
    gc.collect()
    start = time.process_time()
    work(pieces)
    return (time.process_time() - start) / len(pieces) * 1e6


def _memory(text: str) -> float:
    """What the parser takes at its peak, for each character of the document."""
    pieces = _pieces(text)
    tracemalloc.start()
    try:
        _changes(pieces)
        return tracemalloc.get_traced_memory()[1] / len(text)
    finally:
        tracemalloc.stop()


def _measured(works: dict[str, Work], pieces: list[str], rounds: int) -> dict[str, list[float]]:
    def of(name: str) -> float:
        return _cost(works[name], pieces)

    return turns([*works], rounds, of)


def _sizes(shape: Callable[[int], str], rounds: int) -> dict[str, float]:
    found: dict[int, list[float]] = {}
    sizes = {size: _pieces(shape(size)) for size in (2_000, 500_000, 1_000_000)}
    found = turns([*sizes], rounds, lambda size: _cost(_changes, sizes[size]))
    growth = [
        2 * large / small for small, large in zip(found[500_000], found[1_000_000], strict=True)
    ]  # the time of twice the text
    return {
        "2 KB": median(found[2_000]),
        "1 MB": median(found[1_000_000]),
        "doubled": median(growth),
        "memory": _memory(shape(1_000_000)),
    }


def partial_json(setting: Setting) -> Report:
    """JSON in pieces of four characters: changes and values, for documents of several shapes and sizes."""
    works, notes = dict(_OURS), []
    for name, (module, work) in _PEERS.items():
        if find_spec(module) is None:
            notes.append(f"SKIPPED  {name}: it is not installed (make bench installs it)")
        else:
            works[name] = work
    pieces = _pieces(_records(20_000))
    found = _measured(works, pieces, setting.rounds)
    rows = [Row(name, {"20 KB": median(costs)}) for name, costs in found.items()]
    budgets = []
    for name, shape in _SHAPES.items():
        figures = _sizes(shape, setting.rounds)
        rows.append(Row(f"changes: {name}", dict(figures)))
        budgets += [
            Budget(f"{name}: changes, us for 4 characters at 1 MB", figures["1 MB"], 3.0),
            Budget(f"{name}: time of 1 MB / time of 500 KB", figures["doubled"], 2.2),
        ]
    budgets.append(Budget("memory / one string of 1 MB", _memory(_SHAPES["one string"](1_000_000)), 3.0))
    peer = "jiter, a value after each piece"
    if peer in found:
        ratio = median([ours / theirs for ours, theirs in zip(found["changes"], found[peer], strict=True)])
        budgets.append(Budget("changes / jiter at 20 KB", ratio, 1 / 15))
    title = "JSON by 4 characters: CPU microseconds for each; time when doubled to 1 MB; peak memory for each character"
    columns = {"2 KB": ".2f", "20 KB": ".2f", "1 MB": ".2f", "doubled": ".2f", "memory": ".1f"}
    return Report(title, columns, rows, budgets, notes)
