"""`transforms:` in a recipe: applied once after loading, in order; saved, loaded and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorium.engine.checkpoint import load_model, save_run
from sensorium.engine.checkpoint.state import fingerprints, frozen_tensors, saved_tensors
from sensorium.engine.model import Model, build, compose, resolve_and_fit
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.model.transforms.transform_recipes import recipe


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    rows = [{"text": f"a {word}", "answer": f"the {word}"} for word in ("cat", "dog", "cow", "ox")]
    lines = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "rows.jsonl").write_text(f"{lines}\n", encoding="utf-8")
    return tmp_path


def made(*args: Any, seed: int | None = None, **sections: Any) -> Model:
    return compose(resolve_and_fit(parse_recipe(recipe(*args, **sections))), seed=seed)


def state(module: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def layers(model: Model) -> list[Any]:
    assert model.backbone is not None
    return list(model.backbone.blocks())


KEEP = {"type": "keep_layers", "layers": [0, 3]}
REPEAT = {"type": "upscale_depth", "drop": 1}


def test_they_are_applied_in_order_after_loading() -> None:
    source = made(seed=3)
    save_run(source, Path("runs/source"))
    changed = made({"weights": "runs/source", "transforms": [KEEP, REPEAT]})
    places = [0, 3]  # two copies of two layers, without the last and the first
    for layer, place in zip(layers(changed), places, strict=True):
        assert equal(state(layer), state(layers(source)[place]))
    other = made({"weights": "runs/source", "transforms": [REPEAT, KEEP]})
    assert len(layers(other)) == 2
    assert equal(state(layers(other)[1]), state(layers(source)[1]))


@pytest.mark.parametrize("freeze", [True, False])
def test_save_and_load_need_no_source(freeze: bool) -> None:
    save_run(made(seed=3), Path("runs/source"))
    part = {"weights": "runs/source", "transforms": [KEEP], "freeze": freeze}
    second = made(part, seed=4)
    save_run(second, Path("runs/second"))
    Path("runs/source").rename("runs/gone")
    loaded = load_model("runs/second")
    assert equal(state(loaded), state(second))
    assert len(layers(loaded)) == 2
    # A run that begins with it says the same transforms, which are in its weights already.
    more = {"weights": "runs/second", "transforms": [KEEP, {**KEEP, "layers": [1]}]}
    third = made(more, seed=5)
    assert equal(state(layers(third)[0]), state(layers(second)[1]))


@pytest.mark.parametrize("transforms", [None, [REPEAT], [{**KEEP, "layers": [0, 1]}]])
def test_a_run_names_the_transforms_of_the_run_it_begins_with(transforms: Any) -> None:
    save_run(made({"transforms": [KEEP]}), Path("runs/source"))
    part = {"weights": "runs/source"} | ({"transforms": transforms} if transforms else {})
    with pytest.raises(ConfigError, match=r"backbone\.transforms: .*begin the list") as error:
        made(part)
    assert "\n" not in str(error.value)


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("where", ["encoder", "connector", "backbone"])
def test_any_part_takes_them(where: str) -> None:
    part: dict[str, Any] = {"transforms": [{"type": "keep_layers", "every": 2}]}
    if where == "connector":
        part |= {"type": "resampler", "depth": 4, "queries": 2, "heads": 2}
        part["transforms"] = [{"type": "keep_layers", "layers": [0, 2]}]
    model = made(**{where: part})
    text = check(parse_recipe(recipe(**{where: part})))
    assert "say" in str(text)
    model.plan.recipe.write(Path("again.yaml"))
    assert equal(state(build("again.yaml")), state(model))


def test_a_stopped_run_resumes_exactly(runner: Any) -> None:
    half = [{"type": "keep_layers", "every": 2}]
    values = recipe({"transforms": [KEEP]}, {"freeze": True, "transforms": half})
    values["train"] |= {"steps": 4, "checkpoint": {"every": 2}}
    whole = runner.train(values, "whole")
    runner.cut(values, "part", 3)
    assert equal(state(runner.train(values, "part", resume=True)), state(whole))
    loaded = load_model(runner.folder / "part")
    assert equal(state(loaded), state(whole))
    assert len(loaded.stream("text").encoder.blocks()) == 2


@pytest.mark.slow
def test_a_transformed_pretrained_part_is_kept_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensorium.engine.checkpoint.state.MAX_COPY", 0)
    made_by_library = made().stream("text").encoder.model
    made_by_library.save_pretrained(folder / "bert")
    part = {"name": "bert", "config": None, "freeze": True}
    plain = made(encoder=part)
    assert not any(n.startswith("streams.text.encoder") for n in saved_tensors(plain))
    changed = made(encoder=part | {"transforms": [KEEP]})
    names = {n for n in saved_tensors(changed) if n.startswith("streams.text.encoder")}
    assert names and names <= set(frozen_tensors(changed))
    assert "inputs.text.encoder" not in fingerprints(changed)
    identity = changed.plan.streams["text"].encoder.cache_identity
    assert identity["transforms"] == [KEEP]
    save_run(changed, Path("runs/bert"))
    (folder / "bert").rename(folder / "gone")
    assert equal(state(load_model("runs/bert")), state(changed))


@pytest.mark.parametrize(
    ("where", "transform", "message"),
    [
        ("backbone", {"type": "keep_layer", "every": 2}, "no transform is called 'keep_layer'"),
        ("backbone", {"type": "keep_layers", "layer": [0]}, "did you mean 'layers'"),
        ("backbone", {"type": "keep_layers", "layers": [4]}, "layers: found 4; .* 4 layers"),
        ("backbone", {"type": "keep_layers"}, "set either"),
        ("backbone", {"type": "keep_layers", "every": 2, "stack": "encoder"}, "leave it out"),
        ("backbone", {"type": "upscale_depth", "drop": 9}, "drop: found 9"),
        ("connector", {"type": "keep_layers", "every": 2}, "Linear holds no list of layers"),
    ],
)
def test_what_does_not_fit_is_one_line_of_check(where: str, transform: Any, message: str) -> None:
    part: dict[str, Any] = {"transforms": [transform]}
    if where == "connector":
        part["type"] = "linear"
    place = {"connector": "inputs.text.connector"}.get(where, where)
    with pytest.raises(ConfigError, match=message) as error:
        check(parse_recipe(recipe(**{where: part})))
    assert str(error.value).startswith(f"{place}.transforms[0]")
    assert "\n" not in str(error.value)


def test_a_shared_stack_and_a_task_take_none() -> None:
    values = recipe({"transforms": [KEEP]})
    values["inputs"]["text"]["encoder"] = {"share": "backbone", "transforms": [KEEP]}
    with pytest.raises(ConfigError, match="transform them there"):
        check(parse_recipe(values))
    values = recipe()
    values["tasks"]["say"]["transforms"] = [KEEP]
    with pytest.raises(ConfigError, match=r"tasks\.say\.transforms: a task has no"):
        check(parse_recipe(values))
