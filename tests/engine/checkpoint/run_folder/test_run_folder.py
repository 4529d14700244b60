"""A run's folder is the model: what is loaded says and embeds what the trained one did."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import sensorium
from sensorium.engine.checkpoint.run_folder import FINGERPRINTS
from sensorium.engine.inference import Pipeline
from sensorium.engine.model import Model
from sensorium.engine.recipe import load_recipe, parse_recipe
from sensorium.tests.engine.checkpoint.run_folder.run_cases import RECIPE


def _picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)


def _ask(pipeline: Pipeline) -> tuple[Any, Any, Tensor]:
    pictures = [_picture(i) for i in range(3)]
    captions = pipeline.generate("caption", image=pictures, parity="odd")
    named = pipeline.generate("digit", image=pictures)
    return captions, named, pipeline.embed(image=pictures)


@pytest.fixture
def loaded(copy: Path) -> Pipeline:
    return sensorium.load(copy)


def test_what_is_loaded_is_what_was_trained(trained: Model, loaded: Pipeline) -> None:
    before, after = trained.state_dict(), loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    captions, named, embedded = _ask(Pipeline(trained))
    again = _ask(loaded)
    assert again[0] == captions
    assert again[1] == named
    assert torch.equal(again[2], embedded)
    assert not loaded.model.training


def test_it_is_saved_and_loaded_again(loaded: Pipeline, tmp_path: Path) -> None:
    sensorium.save(loaded, tmp_path / "other")
    again = sensorium.load(tmp_path / "other")
    first, second = _ask(loaded), _ask(again)
    assert first[:2] == second[:2]
    assert torch.equal(first[2], second[2])
    for name in ("model.safetensors", "recipe.yaml", FINGERPRINTS):
        assert (tmp_path / "other" / name).read_bytes() == (tmp_path / "copy" / name).read_bytes()


def test_the_saved_recipe_is_the_one_that_ran(trained: Model, copy: Path) -> None:
    assert load_recipe(copy / "recipe.yaml") == trained.plan.recipe
    assert load_recipe(copy) == trained.plan.recipe


def test_only_what_was_trained_is_kept(trained: Model, copy: Path) -> None:
    from safetensors.torch import load_file

    remaining = load_file(copy / "model.safetensors")
    assert not any(name.startswith("streams.image.encoder.") for name in remaining)
    assert any(name.startswith("streams.image.connector.") for name in remaining)
    assert any("lora_A" in name for name in remaining)
    prints = json.loads((copy / FINGERPRINTS).read_text())
    assert [name for name in prints if not name.endswith(".processor")] == ["inputs.image.encoder"]


def test_no_training_data_is_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sensorium.modalities.image.datasets.digits import Digits

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the data were opened")

    monkeypatch.setattr(Digits, "__init__", never)
    sensorium.load(copy).generate("caption", image=_picture(0), parity="odd")


def test_one_value_gives_one_answer(loaded: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(_picture(0)).save(path)
    one = loaded.generate("caption", image=str(path), parity="odd")
    assert set(one) == {"text"}
    assert loaded.generate("caption", image=[str(path)] * 2, parity=["odd", "odd"]) == [one, one]
    assert one == loaded.generate("caption", image=_picture(0), parity="odd")
    vectors = loaded.embed(image=[str(path), path.read_bytes(), _picture(0)])
    assert vectors.shape == (3, 16)
    assert torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors[0], vectors[2])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


def test_options_reach_the_generation(loaded: Pipeline) -> None:
    short = loaded.generate(
        "caption", image=_picture(0), parity="odd", options={"max_new_tokens": 1}
    )
    usual = loaded.generate("caption", image=_picture(0), parity="odd")
    assert len(short["text"]) <= len(usual["text"])


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda p: p.generate("captoin", image=_picture(0)), ("'captoin'", "caption")),
        (lambda p: p.generate("caption", parity="odd"), ("caption", "image", "parity")),
        (lambda p: p.generate("caption", image=_picture(0)), ("'parity'",)),
        (lambda p: p.generate("caption", image=[_picture(0)] * 2, parity=["a"]), ("2", "1")),
        (lambda p: p.embed(picture=_picture(0)), ("'picture'", "image")),
        (lambda p: p.embed(), ("one stream", "none")),
        (lambda p: p.generate("digit", image="gone.png"), ("gone.png",)),
    ],
)
def test_a_wrong_question_is_one_line(
    loaded: Pipeline, ask: Callable[[Pipeline], Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError) as error:
        ask(loaded)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_import_is_light_and_the_rest_comes_when_asked_for() -> None:
    code = (
        "import sys, sensorium; "
        "heavy = {'torch', 'numpy', 'pydantic', 'yaml', 'transformers'} & set(sys.modules); "
        "print(sorted(heavy), sensorium.__version__ != '', "
        "{'load', 'compose', 'push', 'save'} <= set(dir(sensorium)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "True", "True"]
    with pytest.raises(AttributeError, match="laod"):
        sensorium.laod  # noqa: B018
    assert sensorium.compose(parse_recipe(_light())).backbone is None


def _light() -> dict[str, Any]:
    recipe: dict[str, Any] = json.loads(json.dumps(RECIPE))
    del recipe["backbone"], recipe["tasks"]["caption"], recipe["inputs"]["image"]["connector"]
    recipe["inputs"]["image"]["encoder"] |= {"weights": "none", "freeze": False}
    return recipe


def test_compose_takes_a_file_too(tmp_path: Path) -> None:
    parse_recipe(_light()).write(tmp_path / "recipe.yaml")
    a, b = sensorium.compose(tmp_path / "recipe.yaml"), sensorium.compose(parse_recipe(_light()))
    assert all(torch.equal(a.state_dict()[k], v) for k, v in b.state_dict().items())
