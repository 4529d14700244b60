"""The layout of a LeRobotDataset folder, by the version of its format.

v2.0 and v2.1: a file an episode, JSON lines about them. v3.0: files of many episodes, Parquet
about them. Both describe their columns in `meta/info.json`. Source: the folders that
LeRobot (https://github.com/huggingface/lerobot) writes; nothing of that package is needed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from ...paths import read_lines

PLACED = ("episode_index", "length", "data/", "videos/")
"""Keys of a v3 episode's description that locate it; the statistics beside them are many."""


FOLLOWS = 0.25
"""Frames between the end of an episode and the next one's stamp, below which none is between."""


@dataclass
class Episode:
    """One recording: its rows' file, and of each camera the video and where in it (s) it begins."""

    index: int
    length: int
    data: Path
    videos: dict[str, tuple[Path, float]] = field(default_factory=dict)


@dataclass
class Layout:
    """A folder as described by its `meta`. tasks: instructions, by `task_index`."""

    folder: Path
    info: dict[str, Any]
    episodes: list[Episode]
    tasks: dict[int, str]

    @property
    def videos(self) -> list[str]:
        """Columns whose cells are frames of video files."""
        return [
            name for name, feature in self.info["features"].items() if feature["dtype"] == "video"
        ]


def read_layout(folder: Path) -> Layout:
    """Return the layout of a folder. Raise ValueError if `meta` is incomplete, broken, or of an
    unknown version."""
    info = _json(folder / "meta/info.json")
    version = info.get("codebase_version")
    if version not in READERS:
        raise ValueError(
            f"{folder}: codebase_version is {version!r}, expected {', '.join(READERS)}; convert "
            "it with LeRobot's own scripts"
        )
    lacks = [k for k in ("features", "fps", "data_path") if not info.get(k)]
    if lacks:
        raise ValueError(f"{folder}/meta/info.json: lacks {', '.join(lacks)}")
    try:
        return READERS[version](folder, info)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{folder}/meta: lacks {error}; copy the whole folder again") from error


def _cameras(info: dict[str, Any]) -> list[str]:
    return [name for name, feature in info["features"].items() if feature["dtype"] == "video"]


def _by_episode(folder: Path, info: dict[str, Any]) -> Layout:
    """v2: `data/chunk-000/episode_000012.parquet`."""
    episodes, cameras = [], _cameras(info)
    for row in _json_lines(folder / "meta/episodes.jsonl"):
        index = int(row["episode_index"])
        keys = {"episode_chunk": index // int(info["chunks_size"]), "episode_index": index}
        videos = {
            key: (folder / info["video_path"].format(video_key=key, **keys), 0.0) for key in cameras
        }
        data = folder / info["data_path"].format(**keys)
        episodes.append(Episode(index, int(row["length"]), data, videos))
    tasks = {int(t["task_index"]): t["task"] for t in _json_lines(folder / "meta/tasks.jsonl")}
    return Layout(folder, info, episodes, tasks)


def _by_file(folder: Path, info: dict[str, Any]) -> Layout:
    """v3: `data/chunk-000/file-000.parquet`, and where each episode lies in which."""
    files = sorted((folder / "meta/episodes").glob("chunk-*/file-*.parquet"))
    if not files:
        raise ValueError(f"{folder}/meta/episodes: holds no chunk-*/file-*.parquet")
    episodes, cameras = [], _cameras(info)
    tables = [_table(file) for file in files]
    columns = [n for n in tables[0].column_names if n.startswith(PLACED)]
    for record in (row for table in tables for row in table.select(columns).to_pylist()):
        videos = {}
        for key in cameras:
            chunk, number = (record[f"videos/{key}/{k}"] for k in ("chunk_index", "file_index"))
            path = info["video_path"].format(video_key=key, chunk_index=chunk, file_index=number)
            videos[key] = (folder / path, float(record[f"videos/{key}/from_timestamp"]))
        keys = {k: record[f"data/{k}"] for k in ("chunk_index", "file_index")}
        data = folder / info["data_path"].format(**keys)
        episodes.append(Episode(int(record["episode_index"]), int(record["length"]), data, videos))
    table = _table(folder / "meta/tasks.parquet")
    words = next(n for n in table.column_names if n != "task_index")  # pandas' index, named or not
    pairs = zip(table["task_index"].to_pylist(), table[words].to_pylist(), strict=True)
    for key in cameras:
        _count_frames(episodes, key, float(info["fps"]))
    return Layout(folder, info, episodes, dict(pairs))


def _count_frames(episodes: Sequence[Episode], camera: str, fps: float) -> None:
    """Begin each episode of a video at the number of frames before it. Its stamps are sums of
    floats, which drift by whole frames over thousands of episodes (huggingface/lerobot#3177).

    Where an episode does not follow upon the one before it, its own stamp is used.
    """
    files: dict[Path, list[Episode]] = {}
    for episode in episodes:
        files.setdefault(episode.videos[camera][0], []).append(episode)
    for path, inside in files.items():
        previous, stamp, begin = None, 0.0, 0.0
        for episode in sorted(inside, key=lambda episode: episode.videos[camera][1]):
            duration = 0.0 if previous is None else previous.length / fps
            previous, last_stamp, stamp = episode, stamp, episode.videos[camera][1]
            follows = abs(stamp - last_stamp - duration) * fps < FOLLOWS
            begin = begin + duration if follows else stamp
            episode.videos[camera] = (path, begin)


READERS = {"v2.0": _by_episode, "v2.1": _by_episode, "v3.0": _by_file}


def _table(path: Path) -> pa.Table:
    try:
        return parquet.read_table(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file; copy the whole folder again") from None
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: broken ({' '.join(str(error).split())})") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file; is this a LeRobotDataset?") from None
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON: {error}") from error
    return values


def _json_lines(path: Path) -> list[dict[str, Any]]:
    try:
        lines = read_lines(path)
        return [json.loads(line) for line in lines if line.strip()]
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file; copy the whole folder again") from None
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON: {error}") from error
