"""Episodes written as a LeRobotDataset v3.0: Parquet and JSON, whole or not at all.

Legend: `n` frames of an episode.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
DATA = "data/chunk-000/file-000.parquet"


@dataclass
class Recording:
    """columns: `[n, ...]` arrays, texts, or encoded pictures (bytes), a cell a frame. task: the
    instruction."""

    task: str
    columns: Mapping[str, np.ndarray | Sequence[str] | Sequence[bytes]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def write(folder: Path, recordings: Iterable[Recording], rate: float, **info_fields: Any) -> None:
    """Write a folder beside its place, and rename it when it is whole. rate: Hz. info_fields:
    further keys of `info.json`. Where another process was faster, its folder stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _temporary_folder(folder) as temporary:
        episodes = list(recordings)
        if not episodes:
            raise ValueError(f"{folder}: there is no episode to write")
        words = list(dict.fromkeys(e.task for e in episodes))
        table = _rows(episodes, words, rate)
        _write_table(table, temporary / DATA)
        _write_table(_described(episodes), temporary / "meta/episodes/chunk-000/file-000.parquet")
        tasks = pa.table({"task_index": np.arange(len(words)), "task": words})
        _write_table(tasks, temporary / "meta/tasks.parquet")
        info = _info(table, episodes, words, rate) | info_fields
        (temporary / "meta/info.json").write_text(json.dumps(info, indent=1), encoding="utf-8")


@contextlib.contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """A new folder, which takes the place of `folder` at the end, or goes away."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        try:
            os.rename(temporary, folder)  # noqa: PTH104 # Path.rename is the same
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_table(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)


def _rows(episodes: Sequence[Recording], words: Sequence[str], rate: float) -> pa.Table:
    lengths = [len(episode) for episode in episodes]
    frames = np.concatenate([np.arange(n) for n in lengths])
    tasks = [words.index(episode.task) for episode in episodes]
    columns = {
        name: _cells([episode.columns[name] for episode in episodes])
        for name in episodes[0].columns
    }
    return pa.table(
        {
            **columns,
            "timestamp": pa.array((frames / rate).astype(np.float32)),
            "frame_index": frames,
            "episode_index": np.repeat(np.arange(len(lengths)), lengths),
            "index": np.arange(sum(lengths)),
            "task_index": np.repeat(tasks, lengths),
        }
    )


def _cells(parts: Sequence[Any]) -> pa.Array:
    if isinstance(parts[0], np.ndarray):
        values = np.ascontiguousarray(np.concatenate(parts))
        array = pa.array(values.reshape(-1))
        for width in reversed(values.shape[1:]):
            array = pa.FixedSizeListArray.from_arrays(array, width)
        return array
    cells = [cell for part in parts for cell in part]
    if isinstance(cells[0], bytes):
        return pa.array([{"bytes": cell, "path": None} for cell in cells], PICTURE)
    return pa.array(cells, pa.string())


def _described(episodes: Sequence[Recording]) -> pa.Table:
    lengths = np.array([len(episode) for episode in episodes])
    ends = np.cumsum(lengths)
    zeros = np.zeros(len(lengths), np.int64)
    return pa.table(
        {
            "episode_index": np.arange(len(lengths)),
            "tasks": [[episode.task] for episode in episodes],
            "length": lengths,
            "data/chunk_index": zeros,
            "data/file_index": zeros,
            "dataset_from_index": ends - lengths,
            "dataset_to_index": ends,
        }
    )


def _info(
    table: pa.Table, episodes: Sequence[Recording], words: Sequence[str], rate: float
) -> dict[str, Any]:
    return {
        "codebase_version": "v3.0",
        "fps": rate,
        "total_episodes": len(episodes),
        "total_frames": table.num_rows,
        "total_tasks": len(words),
        "chunks_size": 1000,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "splits": {"all": f"0:{len(episodes)}"},
        "features": {field.name: _feature(field.type) for field in table.schema},
    }


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == PICTURE:
        return {"dtype": "image", "shape": None, "names": None}
    shape = []
    while pa.types.is_fixed_size_list(kind):
        shape.append(kind.list_size)
        kind = kind.value_type
    dtypes = {pa.float32(): "float32", pa.float64(): "float64"}
    return {"dtype": dtypes.get(kind, str(kind)), "shape": shape or [1], "names": None}
