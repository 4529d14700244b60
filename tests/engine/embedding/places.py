"""A folder with a recipe and pictures to embed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sensorium.engine.embedding import (
    embed,
    index_metadata,
    load_run_or_recipe,
    open_data,
)
from sensorium.engine.embedding.embed import EmbedReport
from sensorium.engine.index import open_index


class Place:
    """A folder with an untrained recipe, and pictures to embed."""

    def __init__(self, runner: Any) -> None:
        self.runner, self.folder = runner, runner.folder
        self.recipe = str(runner.write(self.written(), "recipe"))

    def written(self, **encoder: Any) -> dict[str, Any]:
        part = {"type": "tiny_parts:Tiny", **encoder}
        data = {"test": {"source": "digits", "split": "test", "limit": 30}}
        changes = {"inputs": {"image": {"encoder": part}}, "tasks": {"digit": {"data": data}}}
        result: dict[str, Any] = self.runner.recipe(changes)
        return result

    def pictures(self, numbers: Sequence[int], name: str = "photos") -> Path:
        folder: Path = self.folder / name
        for i in numbers:
            pixels = np.random.default_rng(i).integers(0, 255, (9, 9, 3), np.uint8)
            file = folder / ("even" if i % 2 == 0 else "odd") / f"{i:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
        return folder

    def go(
        self, *data: str, out: str = "index", recipe: str | None = None, **how: Any
    ) -> EmbedReport:
        run = recipe or self.recipe
        model = load_run_or_recipe(run)
        rows = open_data(model.plan, "image", data, None, how.pop("split", "test"))
        maker = index_metadata(model, "image", run, (), form=how.pop("form", None))
        return embed(model, maker, rows, out, **how)

    def rows(self, out: str = "index", *columns: str) -> dict[str, Any]:
        """key -> vector and columns; a key that stands twice fails."""
        result: dict[str, Any] = {}
        for row in open_index(out).where(None, ["key", "vector", *columns]):
            assert row["key"] not in result
            result[row.pop("key")] = row
        return result


def same(one: Mapping[str, Any], other: Mapping[str, Any], tolerance: float = 0.0) -> None:
    assert set(one) == set(other)
    for key, row in one.items():
        for one_vector, other_vector in zip(
            _parts(row["vector"]), _parts(other[key]["vector"]), strict=True
        ):
            np.testing.assert_allclose(one_vector, other_vector, atol=tolerance)
        rest = {k: v for k, v in row.items() if k != "vector"}
        assert rest == {k: v for k, v in other[key].items() if k != "vector"}


def _parts(vector: Any) -> list[Any]:
    """Return the arrays of a vector: itself, or the indices and values of a sparse one."""
    return list(vector.values()) if isinstance(vector, Mapping) else [vector]
