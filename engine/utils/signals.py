"""Stop training after its step on a signal; a second Ctrl-C stops at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Ctrl-C, a scheduler's end of time, a terminal that was closed."""


class GracefulStop:
    """While entered, the signals of `STOPPING` set `received` to their number.

    Schedulers and launchers send a signal several times, so that only a second SIGINT, of a person
    who does not want to wait, interrupts. Signals that the parent process ignores (`nohup`) stay
    ignored.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._interrupts = 0
        self._old: dict[int, Callable[..., Any] | int | None] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._old[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
        self.received = number


def ignore_stopping() -> None:
    """Ignore the signals of `STOPPING` in this process from now on."""
    for number in STOPPING:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(number, signal.SIG_IGN)
