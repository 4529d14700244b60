"""One writer at a time: of an index on a local disk, for as long as one commit takes.

Lance's commits are atomic, but two that insert the same key at once both succeed, and the row
would be there twice.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

from ..utils import RuntimeFailure
from .errors import index_errors

LOCK = ".lock"
WAIT_SECONDS = 600.0


@contextlib.contextmanager
def write_lock(uri: str) -> Iterator[None]:
    """Hold the lock of an index; it is the kernel's and ends with the process, however that ends.

    An index at an address (`s3://...`) has none. Raise RuntimeFailure where another process holds
    it for ten minutes.
    """
    if "://" in uri:
        yield
        return
    with index_errors(uri, "cannot be written"):
        Path(uri).mkdir(parents=True, exist_ok=True)
        file = (Path(uri) / LOCK).open("w")
    with file:
        _acquire(file.fileno(), uri)
        yield


def _acquire(descriptor: int, uri: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _wait(descriptor, uri)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        warnings.warn(
            f"{uri}: this file system keeps no locks; let one process write at a time",
            stacklevel=2,
        )


def _wait(descriptor: int, uri: str) -> None:
    """Block until the lock is free. A separate thread does, since `flock` has no timeout; it
    holds a copy of the descriptor, so that one that waits too long leaves no lock behind."""
    copy = os.dup(descriptor)
    acquired: Future[None] = Future()

    def block() -> None:
        try:
            fcntl.flock(copy, fcntl.LOCK_EX)
        except OSError as error:
            acquired.set_exception(error)
        else:
            acquired.set_result(None)
        finally:
            os.close(copy)

    threading.Thread(target=block, daemon=True, name="index lock").start()
    try:
        acquired.result(WAIT_SECONDS)
    except TimeoutError:
        raise RuntimeFailure(
            f"{uri}: another process has been writing for {WAIT_SECONDS / 60:.0f} "
            "minutes; wait for it, or end it, and run the same command again"
        ) from None
