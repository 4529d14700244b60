"""Tables of frames: episodes end with their file, and an empty cell spoils no other column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium.engine.data.windows import Windows
from sensorium.modalities.action.datasets.frames import Frames


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    header = ",".join(rows[0])
    lines = [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
    path.write_text("\n".join([header, *lines, ""]))
    return str(path)


def frame(episode: int, value: float, **more: Any) -> dict[str, Any]:
    return {"episode_index": episode, "x": value, **more}


def test_two_files_with_one_number_are_two_recordings(tmp_path: Path) -> None:
    for i, value in enumerate((1.0, 50.0)):
        write(tmp_path / f"r{i}.csv", [frame(0, value) for _ in range(4)])
    source = Windows(Frames(path=str(tmp_path / "r*.csv")), {"x": (0, 2)})
    assert source.episodes == [range(4), range(4, 8)]
    assert source[3]["x"].ravel().tolist() == [1.0] * 3
    assert source[3]["x_padding"].tolist() == [False, True, True]
    assert [source.key(i) for i in (3, 4)] == ["r0/0/3", "r1/0/0"]
    assert list(source.groups) == [0] * 4 + [1] * 4


@pytest.mark.parametrize(("second", "episodes"), [(2, 1), (0, 2), (3, 2)])
def test_a_recording_goes_on_if_its_frames_do(tmp_path: Path, second: int, episodes: int) -> None:
    for i, first in enumerate((0, second)):
        rows = [frame(7, 0.0, frame_index=first + t) for t in range(2)]
        write(tmp_path / f"r{i}.csv", rows)
    assert len(Frames(path=str(tmp_path / "r*.csv")).episodes) == episodes


def test_an_empty_cell_spoils_no_other_column(tmp_path: Path) -> None:
    rewards = [1.5, None, 2.5]
    rows = [frame(0, float(i), reward=r) for i, r in enumerate(rewards)]
    source = Frames(path=write(tmp_path / "a.csv", rows))
    assert [source[i]["reward"] for i in range(3)] == rewards
    assert [source[i]["x"] for i in range(3)] == [0.0, 1.0, 2.0]
    assert np.isnan(source.column_array("reward")).tolist() == [False, True, False]


def test_texts_stay_texts_and_a_late_float_makes_a_column_of_floats(tmp_path: Path) -> None:
    note = ["2020-01-01", "true", "NA"]
    rows = [frame(0, i, note=text, day="2020-01-01") for i, text in enumerate(note)]
    rows += [frame(0, 1, note="x", day="2020-01-01") for _ in range(100_000)]
    source = Frames(path=write(tmp_path / "a.csv", [*rows, frame(0, 0.5, note="y", day="z")]))
    assert [source[i]["note"] for i in range(3)] == note
    assert source[0]["day"] == "2020-01-01"
    assert source[len(source) - 1]["x"] == 0.5
    dates = Frames(path=write(tmp_path / "b.csv", [frame(0, 1, day="2020-01-01")]))
    assert dates[0]["day"] == "2020-01-01"
