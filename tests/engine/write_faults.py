"""A disk that refuses, and a process that is killed, at the n-th change of a folder.

Python's audit events tell of every file that is opened to be written, renamed, linked, made or
removed; a hook counts those below a folder and fails at one of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod")
GROWING = ("open", "os.mkdir", "os.link")
"""What needs room on a disk; the others succeed on a full one."""


@dataclass
class Fault:
    """count: changes so far. at: the number of the one that fails, 0 for none."""

    folder: str
    act: Callable[[], None]
    at: int = 0
    events: tuple[str, ...] = ("open", *CHANGES)
    count: int = 0

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in self.events:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
            return
        paths = [os.fspath(a) for a in arguments if isinstance(a, (str, os.PathLike))]
        if any(os.path.abspath(path).startswith(self.folder) for path in paths):  # noqa: PTH100
            self.count += 1
            if self.count == self.at:
                self.act()


_active: list[Fault] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for fault in _active:
        fault.see(event, arguments)


_installed: list[Any] = []


@contextlib.contextmanager
def fault_at(
    number: int,
    folder: Path,
    act: Callable[[], None],
    events: tuple[str, ...] = ("open", *CHANGES),
) -> Iterator[Fault]:
    """Call `act` at the n-th change below a folder (0: never); yield the counter."""
    if not _installed:
        sys.addaudithook(_hook)  # stays for the life of the process, and does nothing outside
        _installed.append(_hook)
    fault = Fault(str(folder.absolute()), act, number, events)
    _active.append(fault)
    try:
        yield fault
    finally:
        _active.remove(fault)


def refuse() -> None:
    """What a full disk answers."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def die() -> None:
    """What the kernel does to a process that is killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked process; return its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            with Path(os.devnull).open("w") as nothing:
                os.dup2(nothing.fileno(), 2)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
