"""Maps of attribution: their definitions, and planted cells that they must find.

`test_captum.py` compares with captum, where it is installed; its definitions are written out here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.engine.evaluation.attribution import (
    METHODS,
    Cells,
    Scorer,
    curves,
    explain,
    find_cells,
)
from sensorium.engine.evaluation.attribution.cells import signal_axes
from sensorium.engine.evaluation.attribution.methods import attention_rollout, baseline_of
from sensorium.engine.evaluation.attribution.scorer import differentiable
from sensorium.engine.inference import Pipeline
from sensorium.engine.model import Model, build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Features

PARTS = """
from dataclasses import dataclass

import numpy as np
import torch
from sensorium.modalities.base import Encoder, Features, Processor


@dataclass
class Grey(Processor):
    def prepare(self, raw):
        pixels = np.asarray(raw.convert("L").resize((16, 16)), np.float32) / 255
        return {"pixels": torch.from_numpy(pixels)[None]}


class Patches(Encoder):
    '''Means of 4 x 4 px in a row of 16 tokens; one patch counts ten times the others.'''

    def __init__(self, *, decisive: int = 6) -> None:
        super().__init__()
        self.dim, self.processor = 16, Grey()
        self.weights = torch.nn.Parameter(torch.ones(16))
        self.weights.data[decisive] = 10.0

    def forward(self, pixels):
        means = torch.nn.functional.avg_pool2d(pixels, 4).flatten(1) * self.weights
        return Features.dense(torch.diag_embed(means), grid=(4, 4))
"""

RECIPE: dict[str, Any] = {
    "inputs": {
        "image": {
            "modality": "image",
            "encoder": {"type": "mapped_parts:Patches", "freeze": True},
        }
    },
    "tasks": {
        "digit": {
            "type": "classification",
            "input": "image",
            "target": "word",
            "data": {"train": {"source": "digits", "split": "train", "limit": 30}},
        }
    },
    "train": {"steps": 2, "batch_size": 4},
}
OF_ENCODERS = [name for name in METHODS if name != "decoder_rollout"]
PICTURE = np.random.default_rng(0).integers(40, 255, (16, 16)).astype(np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder: Path = tmp_path_factory.mktemp("mapped")
    (folder / "mapped_parts.py").write_text(PARTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        torch.manual_seed(0)
        built = build(parse_recipe(RECIPE))
        head: Any = next(m for m in built.task("digit").modules() if isinstance(m, torch.nn.Linear))
        head.weight.data.zero_()
        head.weight.data[3] = 4.0  # every patch speaks for the fourth class
        yield built


@pytest.fixture(scope="module")
def scorer(model: Model) -> Scorer:
    from PIL import Image

    return Scorer.of(model, "digit", {"image": Image.fromarray(PICTURE)})


@pytest.fixture(scope="module")
def cells(scorer: Scorer) -> Cells:
    return find_cells(scorer, "image")


def test_cells_are_the_tokens_of_the_encoder(cells: Cells, scorer: Scorer) -> None:
    assert cells.grid == (4, 4)
    assert cells.axes == (1, 2)
    value = scorer.tensor(cells.place)[0]
    np.testing.assert_allclose(cells.sums(torch.ones_like(value)), 16)
    whole = cells.replaced(value, torch.zeros_like(value), range(16))
    assert not whole.any()


def test_gradient_times_input_is_its_definition(scorer: Scorer, cells: Cells) -> None:
    value = scorer.tensor(cells.place).clone().requires_grad_(True)
    with differentiable(scorer.model), torch.enable_grad():
        score = scorer.scores(cells.place, value)[0, 0]
        (gradient,) = torch.autograd.grad(score, value)
    expected = cells.sums((gradient * value.detach())[0])
    np.testing.assert_allclose(METHODS["gradient"](scorer, cells, "zero")[0], expected, rtol=1e-5)


@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_occlusion_is_its_definition(scorer: Scorer, cells: Cells, baseline: Any) -> None:
    maps = METHODS["occlusion"](scorer, cells, baseline)[0]
    value = scorer.tensor(cells.place)[0]
    other = baseline_of(value, cells, baseline)
    with torch.no_grad():
        whole = scorer.scores(cells.place, value[None])[0, 0]
        for row in range(4):
            for column in range(4):
                hidden = value.clone()
                part = (slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4))
                hidden[0][part] = other[0][part]
                fall = whole - scorer.scores(cells.place, hidden[None])[0, 0]
                assert maps[row, column] == pytest.approx(float(fall), abs=1e-5)


@pytest.mark.parametrize("method", OF_ENCODERS)
def test_a_planted_patch_ranks_first(scorer: Scorer, cells: Cells, method: str) -> None:
    """The encoder is frozen: gradients still reach its input, and no parameter gets one."""
    maps = METHODS[method](scorer, cells, "zero")
    assert maps.shape == (1, 4, 4)
    assert int(maps[0].argmax()) == 6
    assert all(p.grad is None for p in scorer.model.parameters())
    assert not any(p.requires_grad for p in scorer.model.stream("image").encoder.parameters())


@pytest.mark.parametrize("method", OF_ENCODERS)
def test_curves_beat_a_random_map(scorer: Scorer, cells: Cells, method: str) -> None:
    values = METHODS[method](scorer, cells, "zero").sum(0)
    seeds = [curves(scorer, cells, values, baseline="zero", seed=s).areas() for s in range(5)]
    deletion = np.mean([area["random_deletion"] - area["deletion"] for area in seeds])
    insertion = np.mean([area["insertion"] - area["random_insertion"] for area in seeds])
    assert deletion > 0.05
    assert insertion > 0.05
    wrong = curves(scorer, cells, -values, baseline="zero").areas()  # a map upside down
    assert wrong["deletion"] > seeds[0]["deletion"]


def test_curves_begin_and_end_where_they_must(scorer: Scorer, cells: Cells) -> None:
    result = curves(scorer, cells, np.zeros((4, 4)), baseline="zero")
    assert (result.shares[0], result.shares[-1]) == (0, 1)
    assert result.deletion[0] == pytest.approx(result.insertion[-1], rel=1e-5)
    assert result.deletion[-1] == pytest.approx(result.insertion[0], rel=1e-5)


def test_rollout_of_attention_is_the_paper_s() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 5, 5, generator=generator).softmax(-1)
    identity = torch.eye(5)
    expected = (second / 2 + identity / 2) @ (first / 2 + identity / 2)
    torch.testing.assert_close(attention_rollout([first, second]), expected)
    torch.testing.assert_close(attention_rollout([identity]), identity)
    torch.testing.assert_close(attention_rollout([first, second]).sum(-1), torch.ones(5))


@pytest.mark.parametrize(
    ("shape", "grid", "steps", "axes"),
    [
        ((3, 32, 32), (4, 4), None, (1, 2)),
        ((1, 8, 12, 8), (2, 3, 2), None, (1, 2, 3)),
        ((8, 3, 32, 32), (4, 4, 4), None, (0, 2, 3)),  # frames, channels, height, width
        ((100, 64), (25,), 4, (0,)),
        ((80, 3000), (1500,), None, (1,)),
        ((16000,), (49,), None, (0,)),
        ((39,), None, None, (0,)),
        ((10, 4), (10,), None, (0,)),  # steps of a trajectory
    ],
)
def test_axes_of_space_and_time(
    shape: tuple[int, ...], grid: Any, steps: int | None, axes: tuple[int, ...], model: Model
) -> None:
    tokens = int(np.prod(grid)) if grid else 1
    features = Features.dense(torch.zeros(1, tokens, 2), grid=grid)
    assert signal_axes(shape, features, steps, model.stream("image").encoder) == axes


def test_words_of_other_tasks_are_refused_by_name(model: Model) -> None:
    with pytest.raises(ConfigError, match=r"no 'gradiant'.*gradient"):
        explain(Pipeline(model), "digit", {"image": PICTURE}, methods=["gradiant"])


def test_an_explanation_is_json(model: Model) -> None:
    import json

    from PIL import Image

    result = explain(Pipeline(model), "digit", {"image": Image.fromarray(PICTURE)}, steps=3)
    value = json.loads(json.dumps(result.to_json()))
    assert [unit["text"] for unit in value["units"]] == [result.units[0][0]]
    assert value["signals"]["image"]["grid"] == [4, 4]
    assert value["signals"]["image"]["areas"].keys() == {"gradient", "occlusion"}
