"""Explanations of what a decoder writes: each word over the picture, and over the prompt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.engine.evaluation.attribution import explain, write_explanation
from sensorium.engine.evaluation.attribution.explain import Explanation
from sensorium.engine.inference import Pipeline
from sensorium.engine.model import build
from sensorium.engine.recipe import parse_recipe
from sensorium.modalities.text.tokenizers import Bytes
from sensorium.tasks.common import text_units
from sensorium.tests.engine.evaluation.analyses.analyzed import recipe

METHODS_SHOWN = ("gradient", "rollout", "decoder_rollout")


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explanation]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("captions")
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        torch.manual_seed(0)
        sections = recipe()
        sections["tasks"]["caption"]["max_new_tokens"] = 4
        pipeline = Pipeline(build(parse_recipe(sections)))
        pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
        row = {"image": Image.fromarray(pixels)}
        yield explain(pipeline, "caption", row, methods=[*METHODS_SHOWN], cells=None, steps=2)


def test_every_word_has_a_map_and_shares_of_the_prompt(explained: Explanation) -> None:
    words = len(explained.units)
    assert words
    assert all(score <= 0 for _, score in explained.units)
    image = explained.signals["image"]
    assert image.maps.keys() == {*METHODS_SHOWN}
    assert all(m.shape == (words, *image.cells.grid) for m in image.maps.values())
    for method in ("rollout", "decoder_rollout"):
        shares = image.maps[method].sum((1, 2))
        assert ((shares > 0) & (shares <= 1 + 1e-5)).all(), method
    tokens, importance = explained.texts["prompt.1"]
    assert "".join(tokens) == " It is:"
    np.testing.assert_allclose(importance.sum(1), 1)


def test_the_page_needs_nothing_but_itself(explained: Explanation, tmp_path: Path) -> None:
    page = write_explanation(explained, tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert page.count("<svg") == len(explained.signals["image"].maps) * (len(explained.units) + 1)


@pytest.mark.parametrize("text", ["a handwritten seven", "one", " two  words ", "naïve café"])
def test_words_of_a_text_are_its_words(text: str) -> None:
    units = text_units(Bytes(), Bytes().encode(text))
    assert [unit.text for unit in units] == text.split()
    places = [place for unit in units for place in unit.target[1]]
    assert places == sorted(set(places))
