"""What becomes of a stream whose run died: a pure decision over what its log holds.

The commit point decides. A log without content that stands is run again, and nobody can tell. One with content follows
its policy: ``off`` ends it as interrupted with what came; ``reset`` voids what came, visibly, and runs it again.
Who was told that it is stopped finds it cancelled, with what came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from .errors import ErrorInfo
from .records import CallEnded, CallStarted, Cancelled, Interrupted, Record, Reset, Terminal
from .views.summary import Summary

__all__ = ["Policy", "Recovery", "recovery"]

Policy: TypeAlias = Literal["off", "reset"]

_DIED = "the process that ran it died"


class Recovery(msgspec.Struct, frozen=True):
    """``history`` is what the log holds, ``prelude`` what is to be appended next; then either ``terminal``, or it runs.

    ``calls`` is the number of the last Call: the next one counts on from there.
    """

    history: Sequence[Record]
    prelude: Sequence[Record]
    terminal: Terminal | None
    calls: int


def recovery(log: Sequence[Record], policy: Policy, stop: str | None = None) -> Recovery:
    """What to do with a stream whose log has no terminal. Calls that were open get their ``call_ended`` either way.

    ``stop`` is why it was to be stopped, if it was.
    """
    summary = Summary()
    summary.feed(log)
    info = ErrorInfo("interrupted", _DIED, retryable=True)
    prelude: list[Record] = [
        CallEnded(call.call, "interrupted", error=info, branch=call.branch) for call in summary.open_calls
    ]
    calls = max((record.call for record in log if isinstance(record, CallStarted)), default=0)
    if stop is not None:
        return Recovery(log, prelude, Cancelled(stop), calls)
    if summary.has_content or any(record.branch is not None for record in log if not isinstance(record, CallStarted)):
        if policy == "off" and summary.has_content:
            return Recovery(log, prelude, Interrupted(info), calls)
        prelude.append(Reset(1, _DIED))
    return Recovery(log, prelude, None, calls)
