"""The folder of a run: the process that trains into it, whether it is finished, and its files."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...modalities.paths import address_of
from ..model import FITTED, read_json
from ..recipe import WEIGHTS
from ..utils import (
    ConfigError,
    Mirror,
    RuntimeFailure,
    make_folder,
    remove_parts,
    write_errors,
    write_json,
)

RUN = "run.json"
"""What makes a folder a run's: `finished`, and the `step` that its weights come from."""

LOCK = ".lock"
RECIPE = "recipe.yaml"
STAGES = "stages"
"""The folder of a run that holds its stages."""

OWN = (
    RECIPE,
    FITTED,
    "fingerprints.json",
    WEIGHTS,
    "README.md",
    "metrics.jsonl",
    "checkpoints",
    STAGES,
    "best.safetensors",
    "frozen.safetensors",
    "report.html",
    "modules.json",
    "tracking",
)
"""The files that a run writes into its folder, besides results of its use."""

_RESULTS = ("evaluation.json", "predictions-*.jsonl", "rollout-*")
_PREFIXES = ("", "limit[0-9]*-", "step[0-9]*-")
RESULTS = tuple(prefix + name for prefix in _PREFIXES for name in _RESULTS)
"""Patterns of what evaluations and rollouts write, which belongs to one state of the weights."""

_held: set[Path] = set()


def check_claim(folder: Path, run: object, started: bool, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that holds no run to resume, another run, or foreign files; ConfigError."""
    if resume and run is None:
        raise ConfigError(f"{folder}: holds no run to resume; train it without --resume")
    if started and not (resume or overwrite):
        raise ConfigError(
            f"{folder}: holds a run already; pass --resume to continue, --overwrite to "
            "start over, or --out for another folder"
        )
    check_free(folder)


def run_place(folder: str | Path) -> tuple[Path, Mirror | None]:
    """Return the local folder of a run and, where it is on object storage, what uploads it."""
    address = address_of(folder)
    if address is None:
        return Path(folder), None
    mirror = Mirror(address, (RUN, WEIGHTS, "state.json"), lambda name: name.startswith("."))
    return mirror.folder, mirror


@contextlib.contextmanager
def run_lock(folder: Path, mirror: Mirror | None = None) -> Iterator[None]:
    """Keep every other process from training into a folder, which is made if need be.

    The lock is the kernel's and ends with the process, however that ends. mirror: its folder is
    then made what object storage holds. Raise ConfigError where another process has the lock.
    """
    import fcntl

    make_folder(folder)
    path = (folder / LOCK).resolve()
    busy = f"{folder}: another process is training into it"
    if path in _held:
        raise ConfigError(f"{busy}; wait for it, or pass --out for another folder")
    with write_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            # Of the process, not of the open file: workers of a killed process do not keep it.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise RuntimeFailure(
                    f"{folder}: its disk has no locks ({error.strerror}), which keep a second "
                    "process out; pass --out for a folder on another"
                ) from error
            owner = os.read(descriptor, 1000).decode(errors="replace").strip()
            raise ConfigError(
                f"{busy}{f' ({owner})' if owner else ''}; wait for it, or pass --out for another "
                "folder"
            ) from error
        with write_errors(path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        _held.add(path)
        try:
            if mirror is not None:
                mirror.pull()
            yield
        finally:
            _held.discard(path)
    finally:
        os.close(descriptor)


def read_run(folder: Path) -> dict[str, Any] | None:
    """Return the state in a run's folder, None if the folder is no run's."""
    return read_json(folder / RUN) if (folder / RUN).is_file() else None


def write_run(folder: Path, values: Mapping[str, Any]) -> None:
    """Write the state of a run into its folder."""
    write_json(folder / RUN, dict(values))


def check_free(folder: Path) -> None:
    """Refuse a folder that is no run's and holds a file that a run would replace."""
    if not folder.is_dir() or (folder / RUN).is_file():
        return
    foreign = sorted(name for name in (*OWN, RUN) if (folder / name).exists())
    if foreign:
        raise ConfigError(
            f"{folder}: is no run's folder and holds {foreign[0]}, which a run would replace; pass "
            "--out for another folder"
        )


def remove_run_parts(folder: Path) -> None:
    """Remove what killed processes left half written in a run's folder."""
    remove_parts(folder)
    for name in OWN:
        for directory, _, _ in os.walk(folder / name):
            remove_parts(Path(directory))


def remove_run(folder: Path) -> None:
    """Remove a run's own files and nothing else. Killed in between, the folder holds no run."""
    with write_errors(folder):
        for path in [folder / name for name in OWN] + _results(folder):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    remove_parts(folder)


def set_results_aside(folder: Path, step: int) -> None:
    """Rename results of weights that are about to be replaced, `step10-evaluation.json`;
    it is no longer read as the run's."""
    with write_errors(folder):
        for path in _results(folder):
            if not path.name.startswith("step"):
                path.rename(path.with_name(f"step{step}-{path.name}"))


def _results(folder: Path) -> list[Path]:
    return sorted(path for pattern in RESULTS for path in folder.glob(pattern))
