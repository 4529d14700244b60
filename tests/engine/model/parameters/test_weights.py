"""Where weights come from: a run, one of its streams, a chain of runs, a file; never a pickle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import Tensor

from sensorium.engine.checkpoint import load_model, save_run, state
from sensorium.engine.model import Model, build, compose, resolve_and_fit
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.model.parameters.weight_cases import (
    DATA,
    encoder_of,
    model_of,
    recipe_of,
)


def equal_weights(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_a_stream_of_the_same_name(first: Model) -> None:
    assert not equal_weights(encoder_of(model_of(0)), encoder_of(first))
    assert equal_weights(
        encoder_of(model_of(0, encoder={"weights": "runs/first"})), encoder_of(first)
    )


def test_a_stream_of_another_name(first: Model) -> None:
    named_weights = {"weights": "runs/first:image"}
    assert equal_weights(
        encoder_of(model_of(0, encoder=named_weights, stream="scan"), "scan"), encoder_of(first)
    )
    with pytest.raises(ConfigError) as error:
        model_of(0, encoder={"weights": "runs/first"}, stream="scan")
    assert "runs/first has no inputs.scan" in str(error.value)
    assert "image" in str(error.value)


def test_a_file(first: Model) -> None:
    save_file(encoder_of(first), "encoder.safetensors")
    result = model_of(0, encoder={"weights": "encoder.safetensors"})
    assert equal_weights(encoder_of(result), encoder_of(first))


def test_a_chain_of_runs(first: Model) -> None:
    """Each holds what it needs, and the one before may be gone."""
    frozen = {"weights": "runs/first", "freeze": True}
    second = model_of(1, encoder=frozen)
    save_run(second, Path("runs/second"))
    Path("runs/first").rename("runs/gone")
    third = model_of(2, encoder={"weights": "runs/second", "freeze": True})
    save_run(third, Path("runs/third"))
    Path("runs/second").rename("runs/gone-too")
    assert equal_weights(encoder_of(third), encoder_of(first))
    fourth = model_of(3, encoder={"weights": "runs/third"})
    assert equal_weights(encoder_of(fourth), encoder_of(first))


def test_a_chain_with_its_last_blocks_trained(first: Model) -> None:
    part = {"weights": "runs/first", "freeze": {"last": 1}}
    second = model_of(1, encoder=part)
    with torch.no_grad():
        for parameter in second.stream("image").encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    save_run(second, Path("runs/second"))
    third = model_of(2, encoder={"weights": "runs/second"})
    assert equal_weights(encoder_of(third), encoder_of(second))


def test_what_trained_whole_is_loaded_without_its_beginning(first: Model, tmp_path: Path) -> None:
    """A run that keeps all of a part does not need the run that the part began with."""
    save_run(model_of(1, encoder={"weights": "runs/first"}), Path("runs/second"))
    Path("runs/first").rename("runs/gone")
    assert equal_weights(encoder_of(load_model("runs/second")), encoder_of(first))


@pytest.mark.parametrize("freeze", [True, {"last": 1}, False])
@pytest.mark.parametrize("source", ["runs/first", "runs/first:image", "encoder.safetensors"])
def test_what_a_run_began_with_may_go(
    first: Model, source: str, freeze: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run loads from any folder and in any other, without the run or file that it began with."""
    from safetensors.torch import save_file

    save_file(first.stream("image").encoder.state_dict(), "encoder.safetensors")
    model = model_of(1, encoder={"weights": source, "freeze": freeze})
    save_run(model, Path("runs/second"))
    for path in ("runs/first", "encoder.safetensors"):
        Path(path).rename(f"{path}.gone")
    Path("elsewhere").mkdir()
    Path("runs/second").rename("elsewhere/moved")
    monkeypatch.chdir("elsewhere")
    assert equal_weights(encoder_of(load_model("moved")), encoder_of(model))


def test_tied_weights_come_back_under_both_names() -> None:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    options = {**small, "num_attention_heads": 2, "num_key_value_heads": 2}
    recipe = recipe_of()
    recipe["inputs"]["image"]["connector"] = "linear"
    recipe["backbone"] = {
        "type": "causal",
        "name": "tiny-llama",
        "tokenizer": "bytes",
        "options": {**options, "tie_word_embeddings": True},
    }
    recipe["tasks"]["say"] = {"type": "captioning", "prompt": "<image>", "data": DATA}
    tied = compose(resolve_and_fit(parse_recipe(recipe)), seed=100)
    save_run(tied, Path("runs/tied"))
    recipe["backbone"]["weights"] = "runs/tied"
    again = compose(resolve_and_fit(parse_recipe(recipe)), seed=0)
    assert tied.backbone is not None
    assert again.backbone is not None
    assert equal_weights(again.backbone.state_dict(), tied.backbone.state_dict())


def test_no_weights_are_the_seeds(first: Model) -> None:
    """Without weights a part depends on the recipe's seed and its place alone."""
    assert equal_weights(encoder_of(model_of(5)), encoder_of(model_of(5)))
    assert not equal_weights(encoder_of(model_of(5)), encoder_of(model_of(6)))
    recipe = recipe_of()
    recipe["train"] = {"seed": 5}
    assert equal_weights(encoder_of(build(parse_recipe(recipe))), encoder_of(model_of(5)))


def test_a_head_of_a_run(first: Model) -> None:
    """Of the task of the same name, or of the one that is named, or by its whole name."""
    saved = first.task("digit").heads["head"].state_dict()
    sources = ("runs/first:digit", "runs/first:digit.head")
    for name, source in (("digit", "runs/first"), *(("number", source) for source in sources)):
        recipe = recipe_of()
        task = {**recipe["tasks"]["digit"], "head": {"type": "linear", "weights": source}}
        recipe["tasks"] = {name: task}
        model = compose(resolve_and_fit(parse_recipe(recipe)), seed=0)
        assert equal_weights(model.task(name).heads["head"].state_dict(), saved)


def _vit(folder: Path) -> str:
    transformers.ViTModel(
        transformers.ViTConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            image_size=16,
            patch_size=8,
        )
    ).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    transformers.ViTImageProcessor(size=size).save_pretrained(folder)
    return str(folder)


def _timm(folder: Path) -> str:
    save_for_hf(timm.create_model("test_vit", num_classes=0), str(folder), safe_serialization=True)
    return f"local-dir:{folder}"


@pytest.mark.quick_share(3)
@pytest.mark.parametrize(
    ("freeze", "max_copy", "names"), [(True, 0, True), (True, 2**28, False), (False, 0, False)]
)
@pytest.mark.parametrize(("kind", "make"), [("transformers", _vit), ("timm", _timm)])
def test_a_folder_of_weights_that_is_gone(
    tmp_path: Path,
    kind: str,
    make: Callable[[Path], str],
    freeze: bool,
    max_copy: int,
    names: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that holds all of them, trained or small, needs it no more; else it is named."""
    monkeypatch.setattr(state, "MAX_COPY", max_copy)
    recipe = recipe_of()
    name = make(Path("weights"))  # relative to the working folder, which is another one later
    encoder = {"type": kind, "name": name, "freeze": freeze}
    recipe["inputs"]["image"] = {"modality": "image", "encoder": encoder, "connector": "mean"}
    model = build(parse_recipe(recipe))
    save_run(model, tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert equal_weights(encoder_of(load_model(tmp_path / "run")), encoder_of(model))
    (tmp_path / "weights").rename(tmp_path / "moved")
    if names:
        with pytest.raises(ConfigError, match=r"encoder\.name: there is no folder .*bring it back"):
            load_model(tmp_path / "run")
        recipe_file = tmp_path / "run" / "recipe.yaml"
        text = recipe_file.read_text().replace("/weights", "/moved")
        recipe_file.write_text(text)
        assert equal_weights(encoder_of(load_model(tmp_path / "run")), encoder_of(model))
    else:
        assert equal_weights(encoder_of(load_model(tmp_path / "run")), encoder_of(model))
