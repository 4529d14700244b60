"""Actions and states as people have them, and what is refused with one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv, parquet

from sensorium.modalities.action.read import Trajectory, example, preview, read
from sensorium.modalities.base import ReadError

VALUES = np.arange(12).reshape(4, 3) / 4


def write(path: Path, columns: dict[str, Any]) -> Path:
    table = pa.table(columns)
    if path.suffix == ".csv":
        csv.write_csv(table, path)
    else:
        parquet.write_table(table, path)
    return path


@pytest.mark.parametrize(
    "source",
    [
        VALUES,
        VALUES.astype(np.float16),
        VALUES.tolist(),
        tuple(map(tuple, VALUES)),
        torch.from_numpy(VALUES),
        torch.from_numpy(VALUES).bfloat16().requires_grad_(),
        {"values": VALUES},
        Trajectory(VALUES.astype(np.float32)),
        np.asarray(VALUES * 4, np.int64) / np.float32(4),
    ],
    ids=lambda s: type(s).__name__,
)
def test_every_way_to_give_numbers_gives_the_same(source: Any) -> None:
    motion = read(source)
    assert motion.values.dtype == np.float32 and np.array_equal(motion.values, VALUES)
    assert (motion.steps, motion.dof, motion.rate) == (4, 3, None)
    assert np.array_equal(read(motion).values, np.asarray(motion))


def test_one_state_is_one_step_and_a_gripper_may_be_a_truth() -> None:
    assert read([1, 2, 3]).values.shape == (1, 3)
    assert read(np.array([[True], [False]])).values.tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_is_joints_side_by_side(tmp_path: Path, suffix: str) -> None:
    columns = {f"q{i}": VALUES[:, i] for i in range(3)}
    timed = write(tmp_path / f"a{suffix}", {**columns, "timestamp": np.arange(4) / 20})
    motion = read(str(timed))
    assert np.array_equal(motion.values, VALUES) and motion.rate == pytest.approx(20)
    chosen = read({"path": timed, "columns": ["q2", "q0"], "rate": 50})
    assert np.array_equal(chosen.values, VALUES[:, [2, 0]]) and chosen.rate == 50


def test_a_column_of_lists_gives_as_many_joints(tmp_path: Path) -> None:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(VALUES.ravel()), 3)
    path = write(tmp_path / "a.parquet", {"action": lists, "grip": [0, 1, 0, 1]})
    assert np.array_equal(read(path).values[:, :3], VALUES) and read(path).dof == 4
    ragged = write(tmp_path / "b.parquet", {"action": [[1.0], [1.0, 2.0]]})
    with pytest.raises(ReadError, match=r"'action': rows of different lengths"):
        read(ragged)


BAD = np.where(VALUES == 1.5, np.nan, VALUES)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (BAD, "nan at step 2, joint 0"),
        (np.where(VALUES == 1.5, np.inf, VALUES), "inf at step 2, joint 0"),
        (VALUES * 1e300, "inf at step 0, joint 1"),
        (torch.from_numpy(BAD), "nan at step 2"),
        ([[1, 2], [3]], "rows of different lengths"),
        ([["a", "b"]], "values of type <U1"),
        ([1 + 2j], "values of type complex128"),
        (np.zeros((2, 3, 4)), r"an array of shape \(2, 3, 4\)"),
        (np.zeros((0, 4)), r"an array of shape \(0, 4\)"),
        (np.zeros((4, 0)), r"an array of shape \(4, 0\)"),
        ([], r"an array of shape \(0,\)"),
        (3.5, "a float is no motion"),
        (None, "a NoneType is no motion"),
        (b"12", "a bytes is no motion"),
        ({"data": [1]}, r"a cell with the keys \['data'\]"),
        ({"values": VALUES, "rate": -1}, "a rate of -1"),
        ("there/is/none.csv", "there is no such file"),
        ("notes.txt", r"its name ends in '\.txt'"),
    ],
)
def test_what_is_no_motion_is_refused(source: Any, message: str) -> None:
    with pytest.raises(ReadError, match=f"{message}.*; expected ") as caught:
        read(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"q": [1.0, None]}, "column 'q': 1 cells are empty"),
        ({"q": [1.0, 2.0], "task": ["push", "push"]}, "column 'task' holds string"),
        ({"q": pa.array([], pa.float32())}, "it has no rows"),
        ({"timestamp": [0.0, 0.1]}, "no columns of joints among timestamp"),
        ({"q": [1.0] * 5, "timestamp": [0.0, 0.1, 0.2, 0.5, 0.6]}, "0.3 s before row 3.*missing"),
        ({"q": [1.0] * 2, "timestamp": [0.0, 0.0]}, "advances by 0 s a row"),
        ({"q": [1.0, float("nan")]}, "nan at step 1"),
    ],
)
def test_what_is_wrong_in_a_file(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(write(tmp_path / "a.parquet", columns))


EPISODES = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@given(EPISODES, st.booleans(), st.sampled_from([0.0, 7.5]), st.sampled_from([0.0, 100.0]))
@settings(deadline=None, max_examples=40)
def test_timestamps_begin_anew_with_each_episode(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    numbered: bool,
    first: float,
    pause: float,
) -> None:
    """Also with a clock that goes on over a pause, where a column numbers the episodes."""
    if not numbered:  # a row alone looks like a time that stands still
        lengths = [length + 1 for length in lengths]
    times = [first + np.arange(length) / 20 for length in lengths]
    if numbered:
        times = [time + pause * number for number, time in enumerate(times)]
    columns: dict[str, Any] = {"q": np.arange(sum(lengths)) * 0.5}
    columns["timestamp"] = np.concatenate(times)
    if numbered:
        columns["episode_index"] = np.repeat(np.arange(len(lengths)), lengths)
    path = write(tmp_path_factory.mktemp("motion") / "a.parquet", columns)
    cell = {"path": path, "columns": ["q"]}
    motion = read(cell)
    assert motion.values[:, 0].tolist() == columns["q"].tolist()
    assert motion.rate is None if max(lengths) == 1 else motion.rate == pytest.approx(20)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0, 1, 2, 0, 1, 3], "2 s before row 5, 1 s elsewhere"),
        ([0, 1, 3, 2, 4, 5], "2 s before row 2"),
        ([0, 1, 2, 2, 3, 4], "0 s before row 3"),
        ([5, 4, 3, 2, 1, 0], "advances by -1 s a row"),
    ],
)
def test_times_that_are_of_no_episodes_are_refused(
    tmp_path: Path, times: list[float], message: str
) -> None:
    path = write(tmp_path / "a.parquet", {"q": np.zeros(6), "timestamp": times})
    with pytest.raises(ReadError, match=message):
        read(path)


def test_a_column_that_is_not_there_and_a_broken_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"joint": [1.0]})
    with pytest.raises(ReadError, match=r"no column 'join'; expected .*did you mean 'joint'"):
        read({"path": path, "columns": ["join"]})
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ReadError, match="broken"):
        read(path)


def test_an_example_is_read_and_drawn() -> None:
    first, again = (example(np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first.values, again.values) and read(first).dof == 4
    drawn = preview(first)
    assert drawn.count("<polyline") == first.dof and "8 steps of 4 joints at 10 Hz" in drawn
    assert "nan" not in preview(read([1.0, 1.0]))
