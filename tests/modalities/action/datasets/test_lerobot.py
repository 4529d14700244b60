"""LeRobotDataset folders of both layouts: what is read, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from sensorium.engine.data import open_section
from sensorium.engine.recipe import DataSection
from sensorium.engine.utils import ConfigError
from sensorium.modalities.action.datasets import LeRobot
from sensorium.modalities.action.read import read as read_motion
from sensorium.modalities.base import ReadError
from sensorium.modalities.image.read import read as read_picture

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
    own = {"observation.state": of("float32", 3), "action": of("float32", 3)}
    seen = {CAMERA: of("video", 32, 32, 3)} if videos else {}
    return {**own, **seen, "timestamp": of("float32", 1), **whole, "task_index": of("int64", 1)}


def put(folder: Path, info: dict[str, Any], videos: bool) -> None:
    said = {"fps": FPS, "chunks_size": 1000, "splits": {"train": "0:1", "test": "1:2"}}
    text = json.dumps({**said, "features": features(videos), **info})
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
    for name, said in (("episodes", lines), ("tasks", tasks)):
        (folder / f"meta/{name}.jsonl").write_text("\n".join(map(json.dumps, said)) + "\n")
    return folder


def v30(folder: Path, videos: bool = False) -> Path:
    """All episodes in one file, and in one video."""
    data = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    video = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    put(folder, {"codebase_version": "v3.0", "data_path": data, "video_path": video}, videos)
    every = range(len(LENGTHS))
    table(rows(every), folder / "data/chunk-000/file-000.parquet")
    said: dict[str, Any] = {
        "episode_index": list(every),
        "tasks": [[TASKS[e % 2]] for e in every],
        "length": list(LENGTHS),
        "data/chunk_index": [0 for _ in every],
        "data/file_index": [0 for _ in every],
    }
    if videos:
        film(folder / video.format(video_key=CAMERA, chunk_index=0, file_index=0), every)
        starts = [sum(LENGTHS[:e]) / FPS for e in every]
        said |= {f"videos/{CAMERA}/{k}": [0 for _ in every] for k in ("chunk_index", "file_index")}
        said[f"videos/{CAMERA}/from_timestamp"] = starts
    table(pa.table(said), folder / "meta/episodes/chunk-000/file-000.parquet")
    tasks = {"task_index": [0, 1], "__index_level_0__": list(TASKS)}
    table(pa.table(tasks), folder / "meta/tasks.parquet")
    return folder


LAYOUTS = {"v2.1": v21, "v3.0": v30}
PLACES = [(e, t) for e, n in enumerate(LENGTHS) for t in range(n)]
layouts = pytest.mark.parametrize("layout", LAYOUTS)


@layouts
def test_rows_are_frames_in_order(layout: str, tmp_path: Path) -> None:
    source = LeRobot(path=str(LAYOUTS[layout](tmp_path / "arm")))
    assert len(source) == len(PLACES) and [len(e) for e in source.episodes] == list(LENGTHS)
    for i, (e, t) in enumerate(PLACES):
        row = source[i]
        assert tuple(row) == source.columns
        assert row["observation.state"].tolist() == state(e, t)
        assert (-row["action"]).tolist() == state(e, t)
        assert (row["episode_index"], row["frame_index"]) == (e, t)
        assert row["task"] == TASKS[e % 2]
        assert source.key(i) == f"arm/{e}/{t}"
    assert read_motion(source[2]["observation.state"]).dof == 3
    assert source[-1]["frame_index"] == LENGTHS[-1] - 1
    with pytest.raises(IndexError, match="row 7 of 7"):
        source[7]


@layouts
def test_a_split_is_some_episodes(layout: str, tmp_path: Path) -> None:
    folder = str(LAYOUTS[layout](tmp_path / "arm"))
    whole, train, test = (LeRobot(path=folder, split=s) for s in (None, "train", "1:"))
    assert [s.numbers for s in (whole, train, test)] == [[0, 1], [0], [1]]
    assert test[0]["observation.state"].tolist() == state(1, 0)
    assert len({s.fingerprint() for s in (whole, train, test)}) == 3
    for wrong in ("tests", "5:9", "a:b", "1"):
        with pytest.raises(ValueError, match=r"^split: found .*'train', 'test' or .*'0:2'"):
            LeRobot(path=folder, split=wrong)


@layouts
def test_windows_over_its_episodes(layout: str, tmp_path: Path) -> None:
    values = {
        "source": "lerobot",
        "path": str(LAYOUTS[layout](tmp_path / "arm")),
        "columns": {"state": "observation.state"},
        "delta_frames": {"state": [-1, 0], "action": [0, 2]},
    }
    source = open_section(DataSection.model_validate(values), "data")
    row = source[3]  # the last frame of the first episode
    assert row["state"].tolist() == [state(0, 2), state(0, 3)]
    assert (-row["action"]).tolist() == [state(0, 3)] * 3
    assert row["action_padding"].tolist() == [False, True, True]


@layouts
def test_frames_of_videos_are_those_of_their_times(layout: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    source = LeRobot(path=str(LAYOUTS[layout](tmp_path / "arm", videos=True)))
    for i, (e, t) in enumerate(PLACES):
        cell = source[i][CAMERA]
        pixels = np.asarray(cell)
        assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
        assert abs(int(pixels.mean()) - grey(e, t)) < 8, (e, t)
        assert np.array_equal(np.asarray(read_picture(cell)), pixels)
    without = LeRobot(path=str(tmp_path / "arm"), videos=False)
    assert CAMERA not in without.columns and without.fingerprint() != source.fingerprint()
    with pytest.raises(ValueError, match="frames of a video, expected numbers"):
        source.column_array(CAMERA)


@pytest.mark.parametrize("drift", [0.0, 0.1 / FPS, -0.1 / FPS])
def test_stamps_that_drift_show_no_neighbour(
    drift: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface/lerobot#3177: `from_timestamp` is a sum of floats, here wrong by more than a
    frame at the end; and the second video file begins again at 0."""
    pytest.importorskip("av")
    count, length = 24, 2
    monkeypatch.setattr(f"{__name__}.LENGTHS", (length,) * count)
    monkeypatch.setattr(f"{__name__}.grey", lambda episode, t: 20 * ((2 * episode + t) % 12))
    folder = v30(tmp_path / "arm", videos=True)
    place = folder / "meta/episodes/chunk-000/file-000.parquet"
    described = parquet.read_table(place).to_pydict()
    video = f"videos/{CAMERA}/chunk-000/file-{{:03d}}.mp4"
    for file, inside in enumerate((range(12), range(12, count))):
        film(folder / video.format(file), inside)
        for number, episode in enumerate(inside):
            stamp = number * (length / FPS + drift)
            described[f"videos/{CAMERA}/from_timestamp"][episode] = stamp
            described[f"videos/{CAMERA}/file_index"][episode] = file
    table(pa.table(described), place)
    source = LeRobot(path=str(folder))
    for i in range(count * length):
        pixels = np.asarray(source[i][CAMERA])
        assert abs(int(pixels.mean()) - grey(*divmod(i, length))) < 9, i


def test_stamps_with_a_gap_between_episodes_stand(tmp_path: Path) -> None:
    """Frames of episodes that are not listed lie between those that are."""
    pytest.importorskip("av")
    folder = v30(tmp_path / "arm", videos=True)
    place = folder / "meta/episodes/chunk-000/file-000.parquet"
    described = parquet.read_table(place).to_pydict()
    described[f"videos/{CAMERA}/from_timestamp"] = [0.0, 0.6]
    table(pa.table(described), place)
    assert LeRobot(path=str(folder))[4][CAMERA].time == 0.6


def test_one_episode_of_many_pads_only_at_its_ends(tmp_path: Path) -> None:
    """huggingface/lerobot#2610: with an episode filter, windows marked every frame as padding."""
    options = {"source": "lerobot", "path": str(v21(tmp_path / "arm")), "split": "1:2"}
    windows = {"action": [0, 1], "observation.state": [-1, 0]}
    section = DataSection.model_validate({**options, "delta_frames": windows})
    source = open_section(section, "data")
    assert len(source) == LENGTHS[1]
    for t in range(LENGTHS[1]):
        row = source[t]
        assert row["action_padding"].tolist() == [False, t == LENGTHS[1] - 1]
        assert row["observation.state_padding"].tolist() == [t == 0, False]
        assert (row["action"][:, 0] == -1).all() and (row["observation.state"][:, 0] == 1).all()


@layouts
def test_a_video_that_ends_too_early(layout: str, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    folder = LAYOUTS[layout](tmp_path / "arm", videos=True)
    source = LeRobot(path=str(folder))
    video = source[0][CAMERA].path
    with av.open(str(video), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), "u1"))))
        container.mux(stream.encode())
    assert np.asarray(source[1][CAMERA]).shape == (32, 32, 3)
    with pytest.raises(ReadError, match=r"mp4 at 0\.3000 s: the video ends before this time"):
        np.asarray(source[3][CAMERA])
    video.write_bytes(video.read_bytes()[:100])
    with pytest.raises(ReadError, match="broken or truncated"):
        np.asarray(source[0][CAMERA])
    video.unlink()
    with pytest.raises(ReadError, match="there is no such file"):
        np.asarray(source[0][CAMERA])
    with pytest.raises(ValueError, match=r"mp4: there is no such file"):
        LeRobot(path=str(folder))


def _info(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "meta/info.json"
        said = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in said.items() if v is not None}))

    return change


def _gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _shorter(folder: Path) -> None:
    path = folder / "data/chunk-000/file-000.parquet"
    table(rows([0, 1]).slice(0, 6), path)


def _gap(folder: Path) -> None:
    whole = rows([0, 1])
    frames = pa.array([0, 1, 2, 4, 0, 1, 2])
    place = whole.column_names.index("frame_index")
    table(
        whole.set_column(place, "frame_index", frames), folder / "data/chunk-000/file-000.parquet"
    )


MISTAKES = [
    ("v2.1", _gone("meta/info.json"), "info.json: there is no such file; is this a LeRobotDataset"),
    ("v2.1", _gone("meta/tasks.jsonl"), "tasks.jsonl: there is no such file"),
    ("v2.1", _gone("data/chunk-000/episode_000001.parquet"), "episode_000001.*no such file"),
    ("v3.0", _gone("meta/tasks.parquet"), "tasks.parquet: there is no such file"),
    ("v3.0", _gone("meta/episodes/chunk-000/file-000.parquet"), "holds no chunk"),
    ("v3.0", _gone("data/chunk-000/file-000.parquet"), "file-000.parquet: there is no such file"),
    ("v3.0", _info(codebase_version="v1.6"), "codebase_version is 'v1.6', expected v2.0, v2.1, v3"),
    ("v3.0", _info(codebase_version=None), "codebase_version is None"),
    ("v3.0", _info(fps=None), "info.json: lacks fps"),
    ("v2.1", _info(chunks_size=None), "meta: lacks 'chunks_size'"),
    ("v3.0", _shorter, "episode 1 has 2 rows, its description says 3; frames are missing"),
    ("v3.0", _gap, "episode 0 has frame 4 in the place of 3; frames are missing"),
]


@pytest.mark.parametrize(("layout", "spoil", "told"), MISTAKES)
def test_what_is_missing_is_named(
    layout: str, spoil: Callable[[Path], None], told: str, tmp_path: Path
) -> None:
    folder = LAYOUTS[layout](tmp_path / "arm")
    spoil(folder)
    section = DataSection.model_validate({"source": "lerobot", "path": str(folder)})
    with pytest.raises(ConfigError, match=told) as caught:
        open_section(section, "tasks.push.data.train")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^path: .*nowhere: there is no such folder"):
        LeRobot(path=str(tmp_path / "nowhere"))
