"""Ctrl-C and its kin: the first asks for an orderly end, the second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, NoReturn, Self

__all__ = ["Stopping"]

_REASONS: Final = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "the terminal was closed"}

_ONE_GESTURE: Final = 0.25  # seconds: whoever runs us (timeout, make) may pass on a signal that we got already


class Stopping:
    """While it is entered, signals are taken: the first calls what :meth:`then` was told, in the running loop.

    ``restore()`` is called before a second signal ends the process. A signal that was ignored when the process began
    stays ignored. These are plain handlers, not the loop's, so that the second works even if the loop hangs. Python
    runs them when the main thread next runs, so that a loop which is just going to sleep has to be woken: by a byte
    that the signal itself writes (``signal.set_wakeup_fd``).
    """

    def __init__(self, *, restore: Callable[[], None] = lambda: None) -> None:
        self._restore = restore
        self._act: Callable[[str], object] | None = None
        self._loop = asyncio.get_running_loop()
        self._before: dict[signal.Signals, Any] = {}
        self._came = 0.0
        self._alarm: tuple[socket.socket, socket.socket] | None = None
        self.signal: signal.Signals | None = None
        """The signal that came."""

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # signals are the main thread's
        for number in _REASONS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)
        self._set_alarm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._alarm is not None:
            bell, ear = self._alarm
            signal.set_wakeup_fd(-1)
            self._loop.remove_reader(ear)
            bell.close()
            ear.close()

    def then(self, act: Callable[[str], object]) -> None:
        """What to do at the first signal, with its reason; at once if it came already."""
        self._act = act
        if self.signal is not None:
            act(_REASONS[self.signal])

    def leave(self) -> NoReturn:
        """End the process with the signal's exit code, waiting for nothing: not for a model that is being loaded."""
        assert self.signal is not None
        os._exit(128 + self.signal)

    def _set_alarm(self) -> None:
        bell, ear = socket.socketpair()
        bell.setblocking(False)
        ear.setblocking(False)
        before = signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
        if before != -1:  # the loop (uvloop) sees to it by itself
            signal.set_wakeup_fd(before)
            bell.close()
            ear.close()
            return
        self._alarm = bell, ear
        self._loop.add_reader(ear, ear.recv, 64)

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        now = time.monotonic()
        if self.signal is not None:
            if now - self._came < _ONE_GESTURE:
                return
            self._restore()
            os._exit(128 + number)
        self._came = now
        self.signal = signal.Signals(number)
        if self._act is not None:
            self._loop.call_soon_threadsafe(self._act, _REASONS[self.signal])
