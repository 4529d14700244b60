"""Masked diffusion through the engine: check, train, save, load; a prior from another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sensorium.engine.checkpoint import load_model, save_run
from sensorium.engine.inference import load
from sensorium.engine.model import build, resolve_and_fit
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check, train
from sensorium.engine.utils import ConfigError

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}


def recipe(**changes: Any) -> dict[str, Any]:
    """A scanned digit's sixteen patches are the frames in which its name is spelled."""
    data = {"train": {"source": "digits", "split": "train"}}
    encoder = {"type": "patches", "size": 16, "patch_size": 4, "dim": 16}
    task = {
        "type": "asr_diffusion",
        "prompt": "<image> name:",
        "target": "{word}",
        "tokenizer": "characters",
        "canvas_length": 10,
        "data": data,
    }
    return {
        "inputs": {"image": {"modality": "image", "encoder": encoder, "connector": "linear"}},
        "backbone": {
            "type": "diffusion",
            "name": "tiny-llama",
            "tokenizer": "bytes",
            "weights": "none",
            "options": SIZES,
        },
        "tasks": {"name": {**task, **changes}},
        "train": {"steps": 3, "batch_size": 4, "optimizer": {"lr": 1e-2}},
    }


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def pictures() -> list[Any]:
    from sensorium.modalities.image.datasets.digits import Digits

    source = Digits(split="test")
    return [source[i]["image"] for i in range(3)]


def test_a_run_comes_back_as_it_was() -> None:
    train(parse_recipe(recipe()), Path("run"))
    model, pipeline = load_model("run"), load("run")
    again = load("run")
    saved = load_file(Path("run/model.safetensors"))
    gap = model.task("name").special.gap_id  # type: ignore[union-attr]
    new_rows = saved["decoders.backbone.new_rows.input"]
    assert new_rows.shape[0] == 1  # the gap; the mask is the tokenizer's
    assert gap == 260
    result = pipeline.generate("name", image=pictures(), threshold=0.05)
    assert result == again.generate("name", image=pictures(), threshold=0.05)
    assert {"text", "passes", "prior"} == set(result[0])


def test_the_dry_run_knows_its_shapes() -> None:
    report = check(parse_recipe(recipe()))
    assert {"backbone", "tasks.name.prior"} <= {stage.where for stage in report.components}


def heard(text: str = "{word}") -> Any:
    """A saved CTC run, in the folder `heard`."""
    values = recipe()
    values["tasks"] = {
        "spell": {
            "type": "ctc",
            "input": "image",
            "target": text,
            "tokenizer": "characters",
            "data": values["tasks"]["name"]["data"],
        }
    }
    del values["backbone"], values["inputs"]["image"]["connector"]
    ctc = build(parse_recipe(values))
    save_run(ctc, Path("heard"))
    return ctc


def after(**changes: Any) -> dict[str, Any]:
    """The recipe on the encoder and the head of that run."""
    section = {"type": "per_token", "weights": "heard:spell.head", "freeze": True}
    values = recipe(prior=section, **changes)
    encoder = values["inputs"]["image"]["encoder"]
    values["inputs"]["image"]["encoder"] = {**encoder, "weights": "heard", "freeze": True}
    return values


def test_the_prior_comes_from_a_ctc_run() -> None:
    ctc = heard()
    model = build(parse_recipe(after()))
    for key, value in ctc.task("spell").heads["head"].state_dict().items():
        assert torch.equal(model.task("name").heads["prior"].state_dict()[key], value)
    assert not any(p.requires_grad for p in model.task("name").heads["prior"].parameters())


def test_a_prior_that_spells_otherwise_is_refused_and_can_bring_its_spelling() -> None:
    heard("{word}!")
    expected = r"tasks\.name\.tokenizer: differs .*tasks\.name\.prior learned .*heard:spell in"
    with pytest.raises(ConfigError, match=expected):
        build(parse_recipe(after()))
    model = build(parse_recipe(after(tokenizer={"type": "characters", "weights": "heard:spell"})))
    assert model.task("name").tokenizer.encode("!") != []  # type: ignore[union-attr]


def test_added_rows_train_though_the_decoder_is_frozen() -> None:
    values = recipe()
    values["backbone"]["lora"] = {"r": 2}
    model = build(parse_recipe(values))
    trains = {n for n, p in model.backbone.named_parameters() if p.requires_grad}  # type: ignore[union-attr]
    assert {n for n in trains if "lora" not in n} == {"new_rows.input", "new_rows.output"}


def test_a_decoder_from_left_to_right_is_refused_with_its_place() -> None:
    values = recipe()
    values["backbone"]["type"] = "causal"
    with pytest.raises(ConfigError, match=r"tasks\.name: .*use `type: diffusion` in backbone"):
        build(parse_recipe(values))
    assert resolve_and_fit(parse_recipe(recipe()))
