"""Function calls on their way out: fragments joined until each is a whole functionCall part."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ...records import ToolCall

__all__ = ["Calls"]

_decode: Final = msgspec.json.Decoder().decode
_MOST_TRIES: Final = (
    64  # how often a call that looks complete is parsed to see whether it is, before its end is awaited
)


class _Call:
    __slots__ = ("first", "pieces", "signature", "tries")

    def __init__(self, first: ToolCall) -> None:
        self.first = first
        self.pieces: list[str] = []
        self.signature: str | None = None
        self.tries = 0

    def is_complete(self) -> bool:
        if self.first.kind == "custom" or not self.pieces or not self.pieces[-1].rstrip().endswith("}"):
            return False
        self.tries += 1
        return self.tries <= _MOST_TRIES and isinstance(_arguments("".join(self.pieces)), dict)

    def part(self) -> dict[str, Any]:
        text = "".join(self.pieces)
        call: dict[str, Any] = {"id": self.first.id, "name": self.first.name}
        if not call["id"]:
            del call["id"]
        value = text if self.first.kind == "custom" else _arguments(text or "{}")
        if value is msgspec.UNSET:
            call["partialArgs"] = [{"jsonPath": "$", "stringValue": text}]
            call["willContinue"] = True
        else:
            call["args"] = value if isinstance(value, dict) else {"input": value}
        part: dict[str, Any] = {"functionCall": call}
        if self.signature is not None:
            part["thoughtSignature"] = self.signature
        return part


class Calls:
    """The calls of one candidate that were not shown yet, by their index."""

    def __init__(self) -> None:
        self._open: dict[int, _Call] = {}
        self._shown: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._open)

    def is_new(self, index: int) -> bool:
        return index not in self._open and index not in self._shown

    def add(self, record: ToolCall) -> None:
        """A call or a fragment of one; after a complete JSON object only white space can follow, which says nothing."""
        if record.index in self._shown:
            return
        call = self._open.get(record.index)
        if call is None:
            call = self._open[record.index] = _Call(record)
        if record.arguments:
            call.pieces.append(record.arguments)
        call.signature = call.signature or record.signature

    def take_complete(self) -> list[dict[str, Any]]:
        """The parts of the calls whose arguments are complete, up to the first that is not."""
        parts = []
        for index, call in list(self._open.items()):
            if not call.is_complete():
                break
            parts.append(call.part())
            del self._open[index]
            self._shown.add(index)
        return parts

    def take(self) -> list[dict[str, Any]]:
        """The parts of all the calls: nothing more is coming for them."""
        parts = [call.part() for call in self._open.values()]
        self._shown.update(self._open)
        self._open.clear()
        return parts


def _arguments(text: str) -> Any:
    """The value of JSON text; UNSET if it is cut off or no JSON at all."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError):
        return msgspec.UNSET
