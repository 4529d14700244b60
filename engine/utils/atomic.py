"""Files that are written beside and moved into place: after a kill, an error or on a full disk
there is the whole file of before or the whole new one.

Every file of a run, a report and an answer is written here. A failure to write is one line.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...modalities.paths import address_of
from .errors import ConfigError, RuntimeFailure

PART = ".part"
"""How the name of a file or folder ends that is not yet in place."""

PROBE_BYTES = 2**16
"""Size of the file by which a folder is tried."""

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
_NO_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""What file systems answer that cannot make the content of a folder last."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path of the same name, in a folder beside `path`, to write a file to; move that file
    into place at the end.

    What a library leaves beside the file goes with that folder. The file's mode follows the umask,
    independent of the library's choice. A link is followed, so that its target is replaced. Raise
    RuntimeFailure where the disk refuses.
    """
    with write_errors(path):
        target = Path(os.path.realpath(path))
        folder = _beside(target)
        try:
            folder.mkdir()
            temporary = folder / target.name
            yield temporary
            temporary.chmod(folder.stat().st_mode & 0o666)
            _move(temporary, target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _beside(path: Path) -> Path:
    """Return an unused hidden name in the folder of a path, ending in `PART`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PART}")


def _move(temporary: Path, target: Path) -> None:
    """Move a written file into place; it then survives a loss of power."""
    sync_file(temporary)
    temporary.replace(target)
    sync_folder(target.parent)


@contextlib.contextmanager
def atomic_folder(path: Path, option: str) -> Iterator[Path]:
    """Yield a folder beside `path` to fill, and move it into place at the end. Raise ConfigError
    if something is there already. option: what named the path."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{option}: {path} is there already; name a folder that is not")
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = _beside(path)
        beside.mkdir()
    try:
        yield beside
        with write_errors(path):
            if path.is_dir():
                path.rmdir()
            beside.rename(path)
            sync_folder(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Raise RuntimeFailure, one line with the path, for a disk that is full or refuses."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise RuntimeFailure(f"{path}: cannot be written: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    text = " ".join(str(error).split())
    for code, reason in _FULL.items():
        if number == code or os.strerror(code) in text:
            return f"{reason}; make room and go on"
    return (error.strerror if isinstance(error, OSError) else None) or text


def write_text(path: Path, text: str) -> None:
    """Write a text file whole. What is no regular file (`/dev/stdout`) is written in place.

    Without the folder of `atomic_path`: removing one takes ext4 milliseconds.
    """
    with write_errors(path):
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        target = Path(os.path.realpath(path))
        temporary = _beside(target)
        try:
            temporary.write_text(text, encoding="utf-8")
            _move(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def append_line(path: Path, line: str) -> None:
    """Append a line to a log."""
    with write_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def make_folder(path: Path) -> None:
    """Make a folder and those above it."""
    with write_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def check_writable(path: Path, option: str, *, make: bool = False) -> None:
    """Refuse a path that no file can be written to, before anything is computed.

    option: the user's option, for the message. make: whether its folder is made where it does not
    exist. Raise ConfigError, one line.
    """
    _check_local(path, option)
    if path.is_dir():
        raise ConfigError(f"{option}: {path} is a folder; name a file in it")
    folder = path.absolute().parent
    if make:
        folder = next(each for each in path.absolute().parents if each.exists())
    if not folder.is_dir():
        lacking = "is a file" if folder.exists() else "does not exist; make it first"
        raise ConfigError(f"{option}: the folder {folder} {lacking}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"{option}: {path} cannot be written to")


def _check_local(path: Path, option: str) -> None:
    if address := address_of(path):
        raise ConfigError(f"{option}: {address} is object storage; name a local path")


def check_folder(folder: Path, option: str) -> None:
    """Refuse a folder that no file can be written into; it is made where it does not exist."""
    _check_local(folder, option)
    check_writable(folder / PART, option, make=True)


def try_folder(folder: Path, option: str) -> None:
    """Refuse a folder that no file can be written into, or whose disk is full: write and remove a
    file, in the nearest folder above where it does not exist. Raise ConfigError, one line."""
    check_folder(folder, option)
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"\0" * PROBE_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"{option}: {nearest} cannot be written to: {_reason(error)}") from error


def remove_parts(folder: Path, older_than: float = 0.0) -> None:
    """Remove what killed processes left half written.

    older_than: seconds; where other processes may write at the same time, younger files stay.
    """
    for part in folder.glob(f".*{PART}"):
        with contextlib.suppress(OSError):
            if older_than and time.time() - part.stat().st_mtime <= older_than:
                continue
            if part.is_dir():
                shutil.rmtree(part)
            else:
                part.unlink()


def sync_file(path: Path) -> None:
    """Make a file's content last through a loss of power."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a loss of power, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
    finally:
        os.close(descriptor)
