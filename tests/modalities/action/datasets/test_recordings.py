"""Recordings as tables: written and read again, several files, their mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from sensorium.modalities.action.datasets import LeRobot, Recording, write
from sensorium.modalities.action.datasets.frames import Frames


def table(rows: pa.Table, path: Path) -> None:
    parquet.write_table(rows, path)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    states = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    recordings = [
        Recording("push", {"state": states, "note": ["a"] * 4, "front": [b"png"] * 4}),
        Recording("pull", {"state": states[:2], "note": ["b"] * 2, "front": [b"p"] * 2}),
        Recording("push", {"state": states[:1], "note": ["c"], "front": [b"g"]}),
    ]
    write(tmp_path / "made", recordings, 20.0, more="said")
    source = LeRobot(path=str(tmp_path / "made"))
    assert [len(e) for e in source.episodes] == [4, 2, 1]
    assert [source[i]["task"] for i in (3, 4, 6)] == ["push", "pull", "push"]
    assert np.array_equal(source[5]["state"], states[1])
    assert source[1]["front"] == {"bytes": b"png", "path": None} and source[4]["note"] == "b"
    assert source[1]["timestamp"] == pytest.approx(1 / 20)
    assert np.array_equal(source.column_array("state")[:4], states)
    with pytest.raises(ValueError, match=r"front holds struct.*expected numbers"):
        source.column_array("front")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_that_numbers_its_episodes(suffix: str, tmp_path: Path) -> None:
    result = pa.table(
        {
            "run": [7, 7, 9],
            "a0": [0.0, 1.0, 2.0],
            "a1": [0.5, 1.5, 2.5],
            "note": ["x", "y", "z"],
        }
    )
    path = tmp_path / f"runs.{suffix}"
    csv.write_csv(result, path) if suffix == "csv" else table(result, path)
    source = Frames(path=str(path), join={"action": ["a1", "a0"]}, episode="run")
    assert source[1]["action"].tolist() == [1.5, 1.0] and source[2]["note"] == "z"
    assert [len(e) for e in source.episodes] == [2, 1] and source.key(2) == "runs/9/0"
    assert source.fingerprint() != Frames(path=str(path), episode="run").fingerprint()


def test_several_tables_and_their_mistakes(tmp_path: Path) -> None:
    for i in range(2):
        numbers = {"episode_index": [i] * 2, "q": [1.0, 2.0], "name": ["a", "b"]}
        table(pa.table(numbers), tmp_path / f"{i}.parquet")
    source = Frames(path=str(tmp_path / "*.parquet"))
    assert len(source) == 4 and len(source.episodes) == 2
    first, second = str(tmp_path / "0.parquet"), str(tmp_path / "1.parquet")
    with pytest.raises(ValueError, match=r"names .*0\.parquet twice"):
        Frames(path=[first, second, first])
    table(pa.table({"episode_index": [0, 1, 0]}), tmp_path / "torn.parquet")
    with pytest.raises(ValueError, match="episode 0 are torn apart; sort by episode_index"):
        Frames(path=str(tmp_path / "torn.parquet"))
    with pytest.raises(ValueError, match="has no column 'run' among episode_index, q, name"):
        Frames(path=first, episode="run")
    with pytest.raises(ValueError, match=r"^join\.action: .*no column 'qq'.*did you mean 'q'"):
        Frames(path=first, join={"action": ["qq"]})
    with pytest.raises(ValueError, match=r"^join\.action: .*'name' holds string"):
        Frames(path=first, join={"action": ["q", "name"]})
    with pytest.raises(ValueError, match=r"^path: .*none\*: there is no such file"):
        Frames(path=str(tmp_path / "none*"))
