"""Demonstrations in robomimic's HDF5 files as a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..table import EPISODE, FRAME
from .frames import Recordings, print_of


class Robomimic(Recordings):
    """Rows `action`, the observations by their names, `reward`, `done`, `demo`, `episode_index` and
    `frame_index`: a row a step of every demonstration.

    path: a file with `data/demo_*/actions` and `data/demo_*/obs/*`. split: a name of its `mask`
    (`train`, `valid`), by default all. Pictures (`[steps, H, W, 3]` uint8) are read when they are
    looked at; all else is in memory. Raise ValueError for a file of another form.
    """

    def __init__(self, *, path: str, split: str | None = None) -> None:
        self.file = Path(path).expanduser().absolute()
        if not self.file.is_file():
            raise ValueError(f"path: there is no file {self.file}")
        self.name, self.split = self.file.stem, split
        with self._opened() as file:
            if "data" not in file:
                raise ValueError(f"{self.file}: has no group data, expected robomimic's file")
            self.demos = _demos(file, split, self.file)
            columns, self.pictures = _columns(file, self.demos, self.file)
        self._handle: Any = None
        self._open(pa.table(columns))
        self.columns = (*self.columns, *self.pictures)

    def _opened(self) -> Any:
        try:
            import h5py
        except ModuleNotFoundError as error:
            raise ValueError(
                "path: h5py is not installed: pip install 'sensorium[control]'"
            ) from error
        try:
            return h5py.File(self.file, "r")
        except OSError as error:
            raise ValueError(f"{self.file}: is no HDF5 file ({error})") from error

    def _cell(self, name: str, index: int) -> Any:
        if name not in self.pictures:
            return super()._cell(name, index)
        if self._handle is None:  # opened in the process that reads
            self._handle = self._opened()
        episode = int(self._of_row[index])
        frame = index - self._episodes[episode].start
        return np.asarray(self._handle[f"data/{self.demos[episode]}/obs/{name}"][frame])

    def column_array(self, column: str) -> np.ndarray:
        if column in getattr(self, "pictures", ()):
            raise ValueError(f"{column} holds pictures, expected numbers")
        return super().column_array(column)

    def named_cell(self, index: int, column: str) -> Any:
        return None

    def fingerprint(self) -> str:
        return print_of([self.file], repr(self.split))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_handle": None}


def _demos(file: Any, split: str | None, path: Path) -> list[str]:
    """Return the names of the demonstrations, by their numbers."""
    names = list(file["data"])
    if split is not None:
        masks = list(file.get("mask", ()))
        if split not in masks:
            raise ValueError(
                f"split: {path} has no {split!r}; its masks: {', '.join(masks) or '-'}"
            )
        names = [n.decode() if isinstance(n, bytes) else str(n) for n in file[f"mask/{split}"]]
    if not names:
        raise ValueError(f"{path}: has no demonstration")
    return sorted(names, key=lambda name: (len(name), name))


def _columns(file: Any, demos: list[str], path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the columns of numbers of all demonstrations, and the names of the pictures."""
    first = file[f"data/{demos[0]}"]
    if "actions" not in first or "obs" not in first:
        raise ValueError(f"{path}: data/{demos[0]} has no actions and obs")
    pictures = tuple(k for k, v in first["obs"].items() if v.ndim == 4)
    names = {"action": "actions", **{k: f"obs/{k}" for k in first["obs"] if k not in pictures}}
    names |= {k: v for k, v in (("reward", "rewards"), ("done", "dones")) if v in first}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    counts = []
    for demo in demos:
        group = file[f"data/{demo}"]
        counts.append(len(group["actions"]))
        for name, place in names.items():
            if place not in group or len(group[place]) < counts[-1]:
                raise ValueError(f"{path}: data/{demo} lacks {place} of its {counts[-1]} steps")
            parts[name].append(np.asarray(group[place][: counts[-1]]))
    columns: dict[str, Any] = {
        name: _arrow(np.concatenate(values).astype(np.float32)) for name, values in parts.items()
    }
    columns["demo"] = pa.array([d for d, n in zip(demos, counts, strict=True) for _ in range(n)])
    columns[EPISODE] = pa.array(np.repeat(np.arange(len(demos)), counts))
    columns[FRAME] = pa.array(np.concatenate([np.arange(n) for n in counts]))
    return columns, pictures


def _arrow(values: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values.reshape(-1)))
    if values.ndim == 1:
        return flat
    return pa.FixedSizeListArray.from_arrays(flat, int(np.prod(values.shape[1:])))
