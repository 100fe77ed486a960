"""The answer as plain text: what ``call_stream`` and the guide's chunks show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import StreamReset
from ..records import Record, Reset, Text
from .live import Fresh, Live

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TextView"]


class TextView:
    """The main text of a stream, batch by batch. Reasoning, refusals and the text of branches are not part of it.

    Plain text cannot take back what it showed: a reset that voids shown text raises
    :class:`~multi_agent_scheduler.errors.StreamReset`. One that voids only what was never shown is silent.
    """

    __slots__ = ("_last", "_live")

    def __init__(self) -> None:
        self._live = Live()
        self._last: Fresh | None = None  # the last batch of which text was shown

    def texts(self, batch: Sequence[Record]) -> list[str]:
        """One string for each text record of the batch; none of them is empty. Raises ``StreamReset``."""
        fresh = self._live.feed(batch)
        if fresh.voided:
            self._check(fresh.voided)
        chunks = [record.text for record in fresh.records if type(record) is Text and record.branch is None]
        if "" in chunks:
            chunks = [chunk for chunk in chunks if chunk]
        if chunks:
            self._last = fresh
        return chunks

    def feed(self, batch: Sequence[Record]) -> str:
        """The new text of the batch in one string, "" if there is none. Raises ``StreamReset``."""
        return "".join(self.texts(batch))

    def _check(self, resets: Sequence[Reset]) -> None:
        if self._last is None:
            return
        shown = max(
            record.seq or position
            for position, record in enumerate(self._last.records, self._last.first)
            if type(record) is Text and record.branch is None and record.text
        )
        for reset in resets:
            if reset.branch is None and reset.from_seq <= shown:
                raise StreamReset(
                    f"the answer began again ({reset.reason}) after some of it had been shown, and plain text cannot "
                    "take it back; read the stream's records to follow it across a reset"
                )
