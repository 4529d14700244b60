"""LeRobotDataset folders of both layouts: what is read, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sensorium.engine.data import open_section
from sensorium.engine.recipe import DataSection
from sensorium.engine.utils import ConfigError
from sensorium.modalities.action.datasets import LeRobot
from sensorium.modalities.action.read import read as read_motion
from sensorium.tests.modalities.action.datasets.lerobot_cases import (
    LAYOUTS,
    LENGTHS,
    PLACES,
    TASKS,
    layouts,
    rows,
    state,
    table,
    v21,
)


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


def _info(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "meta/info.json"
        info = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in info.items() if v is not None}))

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
    ("v3.0", _shorter, "episode 1 has 2 rows, its description has 3; frames are missing"),
    ("v3.0", _gap, "episode 0 has frame 4 in the place of 3; frames are missing"),
]


@pytest.mark.parametrize(("layout", "spoil", "message"), MISTAKES)
def test_what_is_missing_is_named(
    layout: str, spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = LAYOUTS[layout](tmp_path / "arm")
    spoil(folder)
    section = DataSection.model_validate({"source": "lerobot", "path": str(folder)})
    with pytest.raises(ConfigError, match=message) as caught:
        open_section(section, "tasks.push.data.train")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^path: .*nowhere: there is no such folder"):
        LeRobot(path=str(tmp_path / "nowhere"))
