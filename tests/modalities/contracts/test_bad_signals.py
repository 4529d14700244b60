"""Series, texts and generators that cannot be used: one line each, with what was found and what was
expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium.engine.model import compose
from sensorium.engine.recipe import parse_recipe, plan_recipe
from sensorium.modalities.base import ReadError
from sensorium.modalities.image.decoders.configs import read_configs
from sensorium.modalities.series.preprocessing import Preprocessing, SeriesProcessor
from sensorium.modalities.series.read import read
from sensorium.modalities.text.pixels.encoder import RenderedText
from sensorium.tests.modalities.series.test_series_read import write_edf


def table(text: str) -> Callable[[Path], Any]:
    def use(folder: Path) -> Any:
        path = folder / "a.csv"
        path.write_text(text, encoding="utf-8")
        return read(path)

    return use


def prepared(values: Any) -> Callable[[Path], Any]:
    def use(folder: Path) -> Any:
        preprocessing = Preprocessing()
        preprocessing.fit([{"values": [1.0, 2.0, 3.0], "rate": 1.0, "channels": ["x"]}])
        series = read({"values": values, "rate": 1.0, "channels": ["x"]})
        return SeriesProcessor(preprocessing).prepare(series)

    return use


def two_rates(folder: Path) -> Any:
    pytest.importorskip("pyedflib")
    path = folder / "a.edf"
    write_edf(path, [np.arange(200.0), np.arange(2.0)], [100.0, 1.0], ["Fp1", "Temp"])
    return read(path)


def no_scheduler(folder: Path) -> Any:
    (folder / "unet").mkdir()
    return read_configs(str(folder))


def another_width(folder: Path) -> Any:
    pytest.importorskip("diffusers")
    picture = {"type": "patches", "size": 16, "patch_size": 8, "dim": 24}
    plan = plan_recipe(
        parse_recipe(
            {
                "inputs": {
                    "image": {"modality": "image", "encoder": picture},
                    "pixels": {"modality": "image", "encoder": {"type": "pixels", "size": 16}},
                },
                "decoders": {"generator": {"type": "image/diffusers", "name": "tiny-dit"}},
                "tasks": {"x": {"type": "generation", "condition": "image", "target": "pixels"}},
                "train": {"steps": 1},
            }
        )
    )
    plan.resolve()
    return compose(plan)


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "irregular time stamps": (
        table("time,x\n0,1\n1,2\n1.6,3\n2.6,4\n"),
        "irregular time stamps: 0.6 s before row 2",
    ),
    "one sample": (table("time,x\n0,1\n"), "one sample; expected at least two"),
    "a constant channel": (prepared([5.0] * 9), "the channel 'x' is constant, 5; expected one"),
    "NaN alone": (prepared([float("nan")] * 9), "not one measured value: all are NaN; expected"),
    "an EDF of two rates": (two_rates, "channels of several rates (100 Hz: Fp1; 1 Hz: Temp)"),
    "a missing glyph": (
        lambda folder: RenderedText(dim=16, heads=2, fonts=[]).processor.prepare("a \U00013000"),
        "no font has",
    ),
    "a generator of another width": (another_width, "tokens of width 24"),
    "a folder without a scheduler": (no_scheduler, "has no scheduler/scheduler_config.json; save"),
}


@pytest.mark.parametrize("name", BAD)
def test_each_is_one_line(name: str, tmp_path: Path) -> None:
    use, words = BAD[name]
    with pytest.raises((ReadError, ValueError)) as error:
        use(tmp_path)
    line = str(error.value)
    assert words in line and "\n" not in line, line


def test_some_missing_values_are_a_mask() -> None:
    sample = prepared([1.0, float("nan"), 3.0])(Path())
    assert sample["mask"].tolist() == [[True, False, True]]
    assert sample["values"].isfinite().all()
