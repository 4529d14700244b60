"""`check_source` names what a source violates, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sensorium.modalities.base import Source, StreamingSource
from sensorium.testing import check_source


class Good(Source):
    """Rows `x` (an array) and `text`."""

    columns = ("x", "text")

    def __init__(self, *, count: int = 4) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        place = range(self.count)[index]
        return {"x": np.array([place, 1.0], np.float32), "text": f"row {place}"}

    def fingerprint(self) -> str:
        return f"good {self.count}"


class GoodStream(StreamingSource):
    columns = ("x",)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from ({"x": i} for i in range(20))

    def fingerprint(self) -> str:
        return "good stream"


class Empty(Good):
    def __len__(self) -> int:
        return 0


class Endless(Good):
    def __getitem__(self, index: int) -> dict[str, Any]:
        return super().__getitem__(index % self.count)


class Random(Good):
    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**super().__getitem__(index), "x": self.rng.normal(size=2)}


class Lacking(Good):
    columns = ("x", "text", "label")


class Listed(Good):
    columns = ["x", "text"]  # type: ignore[assignment]


class Nameless(Good):
    def fingerprint(self) -> str:
        return f"{id(self)}"


class Twins(Good):
    def key(self, index: int) -> str:
        return "row"


class Numbered(Good):
    def key(self, index: int) -> str:
        return index  # type: ignore[return-value]


class Overlapping(Good):
    @property
    def episodes(self) -> list[range]:
        return [range(3), range(2, 4)]


class OtherArray(Good):
    def column_array(self, column: str) -> np.ndarray:
        return super().column_array(column) + 1


class Holding(Good):
    def __init__(self) -> None:
        super().__init__()
        self.function = lambda: 0


class Measured(GoodStream):
    def __len__(self) -> int:
        return 20


class Once(GoodStream):
    def __init__(self) -> None:
        self.rows = iter([{"x": i} for i in range(20)])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.rows


class Stranger:
    """No source."""


BROKEN: dict[type, str] = {
    Empty: "length: has no row",
    Endless: "rows: row 4 of 4 is there, expected IndexError",
    Random: "rows: a row depends on the rows read before it",
    Lacking: "rows: a row lacks the columns label",
    Listed: "columns: columns are ['x', 'text'], expected a tuple of texts",
    Nameless: "fingerprint: two equal sources have two",
    Twins: "key and identity: key is not unique",
    Numbered: "key and identity: key is [0], expected a text",
    Overlapping: "episodes: range(2, 4) overlaps another one",
    OtherArray: "array: array('x') differs from the cells",
    Holding: "in a worker: ",
    Measured: "length: a stream has the length 20, expected TypeError",
    Once: "iteration: a second iteration yields other rows",
    Stranger: "options: is Stranger, no modalities.base.Source",
}


def test_good_sources_pass() -> None:
    check_source(Good, count=40)
    check_source(GoodStream)
    check_source(lambda: Good(count=3))


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.__name__)
def test_a_violation_is_one_line(cls: Any) -> None:
    with pytest.raises(AssertionError) as error:
        check_source(cls)
    line = str(error.value)
    assert line.startswith(f"{cls.__name__}, ") and BROKEN[cls] in line, line
    assert "\n" not in line
