from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sensorium.engine.data import SOURCES, limit, wrappers
from sensorium.engine.data.wrappers import RenamedColumns, rename
from sensorium.engine.recipe import load
from sensorium.engine.recipe.validation import arguments
from sensorium.modalities.base import Source, StreamingSource


@pytest.mark.parametrize("name", SOURCES)
def test_every_name_leads_to_something_whose_options_a_recipe_can_give(name: str) -> None:
    assert "path" in arguments(load(SOURCES[name])) or name == "coco"


class Counted(StreamingSource):
    columns = ("a", "b")

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for i in range(4):
            self.read += 1
            yield {"a": i, "b": -i}

    def fingerprint(self) -> str:
        return "counted"


class Plain(Source):
    columns = ("a", "b")

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"a": range(4)[index], "b": -range(4)[index]}

    def fingerprint(self) -> str:
        return "plain"


@pytest.mark.parametrize("inner", [Plain, Counted])
def test_columns_get_the_names_that_a_recipe_wants(inner: type[Source]) -> None:
    source = rename(inner(), {"image": "a", "b": "a"})
    rows = list(source) if isinstance(source, StreamingSource) else [source[i] for i in range(4)]
    assert rows[2] == {"a": 2, "b": 2, "image": 2}
    assert set(source.columns) == {"a", "b", "image"} and len(source.columns) == 3
    assert isinstance(source, StreamingSource) == (inner is Counted)
    assert source.fingerprint() != rename(inner(), {"image": "b"}).fingerprint()
    with pytest.raises(
        ValueError, match=r"columns\.image: there is no column 'aa'; did you mean 'a'"
    ):
        rename(inner(), {"image": "aa"})


def test_a_cell_has_one_name_however_it_is_reached() -> None:
    plain = Plain()
    reached = limit(RenamedColumns(plain, {"image": "a"}), 2)
    assert reached.cell_key(1, "image") == plain.cell_key(1, "a") != plain.cell_key(1, "b")
    assert reached.key(1) == plain.key(1)


def test_the_first_rows() -> None:
    few = limit(Plain(), 3)
    assert len(few) == 3 and few[2] == {"a": 2, "b": -2} and few[-1] == few[2]
    with pytest.raises(IndexError, match="row 3 of 3"):
        few[3]
    assert len(limit(Plain(), 9)) == 4
    assert few.fingerprint() != limit(Plain(), 2).fingerprint()


def test_the_first_rows_of_a_stream_have_a_length() -> None:
    stream = Counted()
    few = limit(rename(stream, {"image": "a"}), 3)
    assert stream.read == 0 and not isinstance(few, StreamingSource)
    assert len(few) == 3 and few[2]["image"] == 2 and stream.read == 3
    assert len(limit(Counted(), 9)) == 4


def test_a_source_that_does_not_say_its_columns() -> None:
    class Silent(Plain):
        columns = ()

    assert set(wrappers.rename(Silent(), {"image": "a"}).columns) == {"a", "b", "image"}
