"""Windows over episodes: what they hold at the edges, their names in caches, what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium.engine.data import Subset, limit, open_section
from sensorium.engine.data.holdout import hold_out
from sensorium.engine.data.windows import Windows
from sensorium.engine.data.wrappers import rename
from sensorium.engine.recipe import DataSection, Holdout, find
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Source, StreamingSource

LENGTHS = (5, 1, 3)


class Recorded(Source):
    """Three episodes; the state of row i is [i, -i], its speed i / 2."""

    columns = ("q", "speed", "note", "picture", "frame_index")

    def __init__(self, *, lost: bool = False) -> None:
        self.frames = [t + (lost and t > 2) for n in LENGTHS for t in range(n)]

    def __len__(self) -> int:
        return sum(LENGTHS)

    @property
    def episodes(self) -> Sequence[range]:
        ends = np.cumsum(LENGTHS).tolist()
        return [range(e - n, e) for e, n in zip(ends, LENGTHS, strict=True)]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "q": np.array([index, -index], np.float64),
            "speed": index / 2,
            "note": f"row {index}",
            "picture": {"bytes": b"..."},
            "frame_index": self.frames[index],
        }

    def key(self, index: int) -> str:
        return f"r{index}"

    def fingerprint(self) -> str:
        return "recorded"


class Plain(Recorded):
    episodes = ()


class Stream(StreamingSource):
    columns = ("q",)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield {"q": np.zeros(2)}

    def fingerprint(self) -> str:
        return "stream"


@pytest.mark.parametrize("index", range(sum(LENGTHS)))
@pytest.mark.parametrize("span", [(-1, 0), (0, 4), (0, 0), (-2, 3), (3, 4), (-9, -7)])
def test_a_window_is_what_its_definition_says(index: int, span: tuple[int, int]) -> None:
    source = Recorded()
    row = Windows(source, {"q": span})[index]
    mine = next(e for e in source.episodes if index in e)
    expected = [index + k for k in range(span[0], span[1] + 1)]
    held = [source[min(max(i, mine.start), mine.stop - 1)]["q"] for i in expected]
    assert np.array_equal(row["q"], np.stack(held))
    assert row["q_padding"].tolist() == [i not in mine for i in expected]
    assert row["q"].dtype == np.float32 and row["q_padding"].dtype == np.bool_
    assert row["note"] == f"row {index}"


def test_a_number_becomes_a_column_of_one() -> None:
    windows = Windows(Recorded(), {"speed": (0, 2)})
    assert windows[1]["speed"].tolist() == [[0.5], [1.0], [1.5]]
    assert {"speed", "speed_padding", "q"} <= set(windows.columns)


def test_a_row_may_be_changed_without_changing_its_neighbours() -> None:
    windows = Windows(Recorded(), {"q": (0, 1)})
    windows[0]["q"][:] = 99
    assert windows[0]["q"].max() < 99 and windows[1]["q"].max() < 99


def test_names_of_cells_tell_windows_apart() -> None:
    source = Recorded()
    one, other = Windows(source, {"q": (-1, 0)}), Windows(source, {"q": (0, 1)})
    assert one.cell_key(2, "q") != other.cell_key(2, "q") != source.cell_key(2, "q")
    assert one.cell_key(2, "note") == source.cell_key(2, "note")
    assert one.key(2) == source.key(2)
    assert len({one.fingerprint(), other.fingerprint(), source.fingerprint()}) == 3


def test_a_recipe_renames_then_windows_then_limits() -> None:
    section_values = {"source": f"{__name__}:Recorded", "columns": {"state": "q"}, "limit": 4}
    section = DataSection.model_validate({**section_values, "delta_frames": {"state": [0, 2]}})
    source = open_section(section, "data")
    assert len(source) == 4 and [len(e) for e in source.episodes] == [4]
    assert source[3]["state"][:, 0].tolist() == [3, 4, 4]  # the limit is on rows, not on windows
    assert source[3]["state_padding"].tolist() == [False, False, True]
    assert section.model_dump()["delta_frames"] == {"state": (0, 2)}


def test_the_wrappers_keep_episodes_and_arrays() -> None:
    source = limit(rename(Recorded(), {"state": "q"}), 6)
    assert [len(e) for e in source.episodes] == [5, 1]
    assert source.column_array("state").shape == (6, 2)
    assert Subset(source, np.array([1, 3, 5])).episodes == [range(2), range(2, 3)]
    assert not Subset(source, np.array([3, 1])).episodes


@pytest.mark.parametrize(
    ("source", "window", "message"),
    [
        (Plain(), {"q": (0, 1)}, "this source has no episodes"),
        (Stream(), {"q": (0, 1)}, "this source has no episodes"),
        (Recorded(lost=True), {"q": (0, 1)}, "row r3 is frame 4, expected frame 3.*missing"),
        (
            Recorded(),
            {"qq": (0, 1)},
            r"delta_frames\.qq: there is no such column; did you mean 'q'",
        ),
        (Recorded(), {"q": (1, 0)}, r"delta_frames\.q: found \[1, 0\].*\[0, 1\]"),
        (Recorded(), {"note": (0, 1)}, r"delta_frames\.note: holds str\d*, expected numbers"),
        (Recorded(), {"picture": (0, 1)}, r"delta_frames\.picture: holds object, expected numbers"),
    ],
)
def test_what_has_no_windows(
    source: Source, window: dict[str, tuple[int, int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Windows(source, window)


def test_a_mistake_is_told_with_its_place() -> None:
    values = {"source": f"{__name__}:Recorded", "delta_frames": {"q": [1, 0]}}
    with pytest.raises(
        ConfigError, match=r"^tasks\.push\.data\.train\.delta_frames\.q: found \[1, 0\]"
    ):
        open_section(DataSection.model_validate(values), "tasks.push.data.train")


def sides(source: Source, share: float) -> tuple[list[int], list[int]]:
    """The rows that are held out and the rest."""
    rest, held = hold_out(source, Holdout(share=share), "data.holdout", skip=False)
    assert isinstance(rest, Subset) and isinstance(held, Subset)
    return held.rows.tolist(), rest.rows.tolist()


def test_whole_episodes_are_held_out() -> None:
    windows = Windows(Recorded(), {"q": (0, 2)})
    remaining, rest = sides(windows, 0.34)
    assert sorted([*remaining, *rest]) == list(range(len(windows)))
    for episode in windows.episodes:
        assert len({i in remaining for i in episode}) == 1
    assert len(remaining) in LENGTHS
    with pytest.raises(ConfigError, match=r"data\.holdout: 0\.1 of 3 groups is 0"):
        sides(windows, 0.1)


def test_without_episodes_rows_are_held_out() -> None:
    remaining, rest = sides(Plain(), 0.5)
    assert len(remaining) == 4 and sorted([*remaining, *rest]) == list(range(9))


TIMES = [
    ("0,0.0 0,0.1 0,0.2 1,0.0 1,0.1", None),
    ("0,0.0 0,0.11 0,0.19 1,5.0 1,5.1", None),
    ("0,0.1 0,0.0 0,0.2 1,0.0 1,0.1", "a/0/1 is -0.1 s after"),
    ("0,0.0 0,0.1 0,0.2 0,0.9 1,0.0", "a/0/3 is 0.7 s after"),
    ("0,0.0 0,0.0 0,0.1 0,0.2 0,0.3", "a/0/1 is 0 s after"),
]


@pytest.mark.parametrize(("rows", "message"), TIMES)
def test_frames_without_numbers_are_a_step_of_time_apart(
    rows: str, message: str | None, tmp_path: Path
) -> None:
    lines = [f"{row},{number}" for number, row in enumerate(rows.split())]
    (tmp_path / "a.csv").write_text("\n".join(["episode_index,timestamp,a", *lines]))
    source = find("source", "frames", "here")(path=str(tmp_path / "a.csv"))
    if message is None:
        assert Windows(source, {"a": (0, 1)})[1]["a"].ravel().tolist() == [1, 2]
    else:
        with pytest.raises(ValueError, match=message):
            Windows(source, {"a": (0, 1)})
