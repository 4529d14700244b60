"""The checkpoints of a run: `checkpoints/step-00000150/`, each whole by itself.

A checkpoint holds the trained tensors, the optimizer, the best weights so far and the state of the
loop. Its `state.json` lists its files with their sizes and checksums, so that one that is torn is
known before anything of it is used.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..model import Model
from ..utils import ConfigError, Mirror, RuntimeFailure, sync_folder, write_errors, write_text
from .optimizer_state import OptimizerState, restore_optimizer_by_name
from .state import read_names, read_tensors, restore, write_tensors

CHECKPOINTS = "checkpoints"
"""The folder of a run that holds its checkpoints."""

STATE = "state.json"
BEST = "best.safetensors"
"""The best weights so far, in the folder of a run while it trains, and in its checkpoints."""

FROZEN = "frozen.safetensors"
"""What never changes and is kept nevertheless, as the run or file that it came from may move."""

_MODEL, _OPTIMIZER, _CALLBACKS = (
    f"{name}.safetensors" for name in ("model", "optimizer", "callbacks")
)
_PART, _BROKEN = ".step.part", ".broken"


class Checkpoints:
    """The checkpoints in a folder, the newest `keep` of them. mirror: uploads the run's folder."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.mirror: Mirror | None = None

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def __len__(self) -> int:
        return len(self._paths())

    def newest(self) -> tuple[Path | None, list[str]]:
        """Return the newest whole checkpoint, and a line for each newer one that is torn and was
        set aside. Raise RuntimeFailure where there are some and none is whole."""
        lines: list[str] = []
        paths = self._paths()
        for path in reversed(paths):
            fault = _fault(path)
            if fault is None:
                return path, lines
            lines.append(f"{path}: is no whole checkpoint ({fault})")
            with write_errors(path):
                path.rename(path.with_name(f"{path.name}{_BROKEN}"))
        if paths:
            raise RuntimeFailure(
                "\n".join([*lines, f"{self.folder}: no checkpoint is whole; start over"])
            )
        return None, lines

    def saved_names(self) -> set[str]:
        """Return the names of the tensors that the newest readable checkpoint keeps of the
        model."""
        for path in reversed(self._paths()):
            files = [path / _MODEL, *filter(Path.is_file, [path / FROZEN])]
            with contextlib.suppress(ConfigError):
                return {name for file in files for name in read_names(file)}
        return set()

    def write(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        optimizer: OptimizerState,
        extra: Mapping[str, Any],
        links: Sequence[Path] = (),
    ) -> Path:
        """Write a checkpoint beside, then move it into place: it is whole or not there.

        tensors: those of the model that change. optimizer: see `optimizer_by_name`. links: files
        of the run that belong to it (the best weights so far, what never changes); a second name is
        made of them, no copy, where the disk can.
        """
        path, temporary = self.path(step), self.folder / _PART
        try:
            with write_errors(path):
                shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
                temporary.mkdir(parents=True)
                self._fill(temporary, step, tensors, optimizer, extra, links)
                sync_folder(temporary)
                shutil.rmtree(path, ignore_errors=True)
                temporary.rename(path)
                sync_folder(self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for old in [*self._paths()[: -self.keep], *self.folder.glob(f"step-*{_BROKEN}")]:
            shutil.rmtree(old, ignore_errors=True)
        self.upload()
        return path

    def upload(self) -> None:
        """Upload what has changed of a run on object storage."""
        if self.mirror is not None:
            self.mirror.push()

    def _fill(
        self,
        folder: Path,
        step: int,
        tensors: Mapping[str, Tensor],
        optimizer: OptimizerState,
        extra: Mapping[str, Any],
        links: Sequence[Path],
    ) -> None:
        write_tensors(folder / _MODEL, tensors)
        optimizer_tensors, optimizer_values = optimizer
        write_tensors(folder / _OPTIMIZER, optimizer_tensors)
        callbacks = extra.get("callbacks", {})
        tensors = {name: value for name, value in callbacks.items() if isinstance(value, Tensor)}
        write_tensors(folder / _CALLBACKS, tensors)
        for file in links:
            link_or_copy(file, folder / file.name)
        state = {"step": step, "optimizer": optimizer_values, **extra}
        state["callbacks"] = {n: value for n, value in callbacks.items() if n not in tensors}
        state["files"] = {file.name: _stamp(file) for file in sorted(folder.iterdir())}
        write_text(folder / STATE, json.dumps(state))

    def read(
        self, path: Path, model: Model, optimizer: torch.optim.Optimizer
    ) -> tuple[dict[str, Any], list[str]]:
        """Fill model and optimizer; return the state of the loop, and the parameters for which the
        optimizer has none."""
        state: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
        with torch.no_grad():
            frozen = read_tensors(path / FROZEN) if (path / FROZEN).is_file() else {}
            restore(model, frozen | read_tensors(path / _MODEL), str(path))
        tensors = read_tensors(path / _OPTIMIZER)
        without = restore_optimizer_by_name(model, optimizer, tensors, state["optimizer"])
        state["callbacks"] |= read_tensors(path / _CALLBACKS)
        return state, without

    def _paths(self) -> list[Path]:
        """Every checkpoint, the oldest first."""
        paths = [path for path in self.folder.glob("step-*") if path.suffix != _BROKEN]
        return sorted(paths, key=lambda path: path.name)


def link_or_copy(source: Path, target: Path) -> None:
    """Make a second name of a file that is only ever replaced, or a copy where the disk has no
    links."""
    with write_errors(target):
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)


def _stamp(path: Path) -> dict[str, int]:
    """Return the size and the checksum of a file; what never changes is not read again."""
    crc = 0
    if path.name == FROZEN:
        return {"bytes": path.stat().st_size, "crc32": crc}
    with path.open("rb") as file:
        while block := file.read(2**20):
            crc = zlib.crc32(block, crc)
    return {"bytes": path.stat().st_size, "crc32": crc}


def _fault(path: Path) -> str | None:
    """Return why a checkpoint is not whole, None if it is."""
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        for name, stamp in state["files"].items():
            if (path / name).stat().st_size != stamp["bytes"]:
                return f"{name} has {(path / name).stat().st_size} bytes of {stamp['bytes']}"
            if _stamp(path / name) != stamp:
                return f"{name} has another checksum"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is not there"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{STATE} cannot be read: {' '.join(str(error).split())}"
    return None
