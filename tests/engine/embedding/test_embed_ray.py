"""Embedding with Ray Data."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from sensorium.engine.embedding import (
    index_metadata,
    load_run_or_recipe,
    open_data,
)
from sensorium.engine.embedding.data_spec import DataSpec
from sensorium.engine.index import open_index
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import StreamingSource
from sensorium.tests.engine.embedding.places import Place, same


class Endless(StreamingSource):
    columns = ("image", "number")

    def __iter__(self) -> Any:
        for i in range(23):
            pixels = np.random.default_rng(i).integers(0, 255, (9, 9, 3), np.uint8)
            yield {"image": None if i == 5 else pixels, "number": i}

    def fingerprint(self) -> str:
        return "endless"


@pytest.mark.slow
def test_ray_gives_the_same_rows(place: Place) -> None:
    pytest.importorskip("ray")
    from sensorium.engine.embedding.ray_backend import embed_with_ray

    folder = place.pictures(range(20))
    (folder / "broken.png").write_bytes(b"none")
    place.go(str(folder), batch_size=4)
    model = load_run_or_recipe(place.recipe)
    rows = open_data(model.plan, "image", [str(folder)], None, "")
    maker = index_metadata(model, "image", place.recipe, ())
    how: dict[str, Any] = {"batch_size": 4, "commit_rows": 6}
    done = embed_with_ray(model, maker, rows, "cluster", workers=2, **how)
    assert (done.added.new, list(done.skipped.reasons)) == (20, ["broken.png"])
    same(
        place.rows("index", "image", "split", "_identity", "_row", "_data"),
        place.rows("cluster", "image", "split", "_identity", "_row", "_data"),
        1e-6,
    )
    assert dataclasses.asdict(open_index("index").metadata) == dataclasses.asdict(
        open_index("cluster").metadata
    )
    assert embed_with_ray(model, maker, rows, "cluster", **how).already_present == 20


def test_ray_wants_rows_by_index(place: Place) -> None:
    from sensorium.engine.embedding.ray_backend import embed_with_ray

    model = load_run_or_recipe(place.recipe)
    with pytest.raises(ConfigError, match="which a streaming source has not"):
        maker = index_metadata(model, "image", place.recipe, ())
        embed_with_ray(model, maker, DataSpec(Endless(), "", "{}"), "index")
