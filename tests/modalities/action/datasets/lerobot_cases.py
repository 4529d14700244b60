"""Small LeRobot data sets of both layouts, written to a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

FPS = 10
CAMERA = "observation.images.front"
LENGTHS = (4, 3)
TASKS = ("open the drawer", "close it")


def state(episode: int, frame: int) -> list[float]:
    return [float(episode), float(frame), episode + frame / 8]


def grey(episode: int, frame: int) -> int:
    """What every pixel of a frame of a video is, about."""
    return 20 + 100 * episode + 20 * frame


def rows(episodes: Sequence[int]) -> pa.Table:
    places = [(e, t) for e in episodes for t in range(LENGTHS[e])]
    numbers = {
        "timestamp": pa.array([t / FPS for _, t in places], pa.float32()),
        "frame_index": [t for _, t in places],
        "episode_index": [e for e, _ in places],
        "index": [sum(LENGTHS[:e]) + t for e, t in places],
        "task_index": [e % 2 for e, _ in places],
    }
    states = pa.array([state(*p) for p in places], pa.list_(pa.float32(), 3))
    actions = pa.array([[-x for x in state(*p)] for p in places], pa.list_(pa.float32()))
    return pa.table({"observation.state": states, "action": actions, **numbers})


def film(path: Path, episodes: Sequence[int]) -> None:
    """A video of these episodes, one after the other."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for e in episodes:
            for t in range(LENGTHS[e]):
                pixels = np.full((32, 32, 3), grey(e, t), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode())


def features(videos: bool) -> dict[str, Any]:
    def of(dtype: str, *shape: int) -> dict[str, Any]:
        return {"dtype": dtype, "shape": list(shape), "names": None}

    whole = {name: of("int64", 1) for name in ("frame_index", "episode_index", "index")}
    columns = {"observation.state": of("float32", 3), "action": of("float32", 3)}
    seen = {CAMERA: of("video", 32, 32, 3)} if videos else {}
    return {**columns, **seen, "timestamp": of("float32", 1), **whole, "task_index": of("int64", 1)}


def put(folder: Path, info: dict[str, Any], videos: bool) -> None:
    description = {"fps": FPS, "chunks_size": 1000, "splits": {"train": "0:1", "test": "1:2"}}
    text = json.dumps({**description, "features": features(videos), **info})
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    (folder / "meta/info.json").write_text(text)


def table(rows: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(rows, path)


def v21(folder: Path, videos: bool = False) -> Path:
    """A file an episode."""
    data = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    video = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    put(folder, {"codebase_version": "v2.1", "data_path": data, "video_path": video}, videos)
    lines = []
    for e, length in enumerate(LENGTHS):
        place = {"episode_chunk": 0, "episode_index": e}
        table(rows([e]), folder / data.format(**place))
        if videos:
            film(folder / video.format(video_key=CAMERA, **place), [e])
        lines.append({"episode_index": e, "tasks": [TASKS[e % 2]], "length": length})
    tasks = [{"task_index": i, "task": words} for i, words in enumerate(TASKS)]
    for name, lines_of in (("episodes", lines), ("tasks", tasks)):
        (folder / f"meta/{name}.jsonl").write_text("\n".join(map(json.dumps, lines_of)) + "\n")
    return folder


def v30(folder: Path, videos: bool = False) -> Path:
    """All episodes in one file, and in one video."""
    data = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    video = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    put(folder, {"codebase_version": "v3.0", "data_path": data, "video_path": video}, videos)
    every = range(len(LENGTHS))
    table(rows(every), folder / "data/chunk-000/file-000.parquet")
    description: dict[str, Any] = {
        "episode_index": list(every),
        "tasks": [[TASKS[e % 2]] for e in every],
        "length": list(LENGTHS),
        "data/chunk_index": [0 for _ in every],
        "data/file_index": [0 for _ in every],
    }
    if videos:
        film(folder / video.format(video_key=CAMERA, chunk_index=0, file_index=0), every)
        starts = [sum(LENGTHS[:e]) / FPS for e in every]
        description |= {
            f"videos/{CAMERA}/{k}": [0 for _ in every] for k in ("chunk_index", "file_index")
        }
        description[f"videos/{CAMERA}/from_timestamp"] = starts
    table(pa.table(description), folder / "meta/episodes/chunk-000/file-000.parquet")
    tasks = {"task_index": [0, 1], "__index_level_0__": list(TASKS)}
    table(pa.table(tasks), folder / "meta/tasks.parquet")
    return folder


LAYOUTS = {"v2.1": v21, "v3.0": v30}
PLACES = [(e, t) for e, n in enumerate(LENGTHS) for t in range(n)]
layouts = pytest.mark.parametrize("layout", LAYOUTS)
