"""Attention rollout through a decoder is that of the weights which transformers returns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.engine.evaluation.attribution import METHODS, Cells, Scorer, find_cells
from sensorium.engine.evaluation.attribution.decoder_rollout import watched_contexts
from sensorium.engine.evaluation.attribution.methods import attention_rollout
from sensorium.engine.model import Model, build
from sensorium.engine.recipe import parse_recipe
from sensorium.modalities.base import Features
from sensorium.tests.engine.evaluation.analyses.analyzed import recipe


def rolled(model: Model, task: str = "caption") -> tuple[Scorer, Cells]:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    scorer = Scorer.of(model, task, {"image": Image.fromarray(pixels)})
    return scorer, find_cells(scorer, "image")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """Its encoder has no attention, and so its tokens are the cells."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("rolled")
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        torch.manual_seed(0)
        sections = recipe()
        patches = {"type": "patches", "size": 32, "patch_size": 8, "dim": 16}
        sections["inputs"]["image"] |= {"encoder": patches}
        sections["tasks"]["caption"]["max_new_tokens"] = 4
        yield build(parse_recipe(sections))


def test_it_is_the_rollout_of_the_decoder_at_the_place_of_each_token(model: Model) -> None:
    """Of weights that transformers itself returns, with one token of context for each cell."""
    scorer, cells = rolled(model)
    maps = METHODS["decoder_rollout"](scorer, cells, "mean")
    decoder: Any = model.decoders["backbone"]
    ids = torch.tensor([scorer.units[0].target[0]])  # type: ignore[index]
    contexts: list[Features] = []
    with torch.no_grad(), watched_contexts(decoder, contexts):
        scorer.scores(cells.place, scorer.tensor(cells.place))
        tokens = model.context(scorer.batch).encode("image").tokens[0]
        embeds = torch.cat([contexts[0].tokens, decoder.embed(ids[:, :-1])], 1)
        decoder.decoder.set_attn_implementation("eager")
        try:
            weights = decoder.decoder(inputs_embeds=embeds, output_attentions=True).attentions
        finally:
            decoder.decoder.set_attn_implementation("sdpa")
    flow = attention_rollout([each[0].mean(0) for each in weights])
    distances = torch.cdist(tokens, contexts[0].tokens[0])
    places = distances.argmin(1)  # of each cell in the context
    assert places.tolist() == list(range(int(places[0]), int(places[0]) + len(cells)))
    first = embeds.shape[1] - ids.shape[1]
    for unit, values in zip(scorer.units, maps, strict=True):
        queries = [first + place for place in unit.target[1]]  # type: ignore[index]
        expected = flow[queries][:, places].mean(0).reshape(cells.grid)
        np.testing.assert_allclose(values, expected, atol=1e-5)


def test_a_task_without_a_decoder_is_refused(model: Model) -> None:
    scorer, cells = rolled(model, "digit")
    with pytest.raises(ValueError, match="has 0 decoders that write, expected one"):
        METHODS["decoder_rollout"](scorer, cells, "mean")
