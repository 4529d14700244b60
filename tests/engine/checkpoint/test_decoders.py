"""Decoders by name: each with its own tokenizer, weights and freezing, beside the backbone."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sensorium.engine.checkpoint import load_model, save_run
from sensorium.engine.model import build
from sensorium.engine.recipe import load_recipe, parse_recipe
from sensorium.engine.training import check, train
from sensorium.engine.training.optim import build_optimizer
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Decoder, Features, Loss
from sensorium.tasks.base import Context, Task
from sensorium.tasks.batch import Batch
from sensorium.tasks.text import Captioning
from sensorium.tasks.uses import BACKBONE, DecoderUse, StreamUse

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
LLAMA = {
    "type": "causal",
    "name": "tiny-llama",
    "tokenizer": {"type": "bpe", "size": 264},
    "options": {**SMALL, "num_attention_heads": 2, "num_key_value_heads": 2},
}
T5 = {"type": "seq2seq", "name": "tiny-t5", "tokenizer": "bytes", "weights": "none"}
DATA = {"train": {"source": "digits", "split": "train", "limit": 8}}
SAY = {"type": "captioning", "prompt": "<image>", "target": "{word}", "data": DATA}


class Waves(Decoder):
    """Generates a signal of a fixed length."""

    def __init__(self, *, dim: int = 8, samples: int = 5) -> None:
        super().__init__()
        self.dim, self.out = dim, nn.Linear(dim, samples)

    def loss(self, condition: Features, target: Mapping[str, Tensor]) -> Loss:
        error = self.out(condition.mean()) - target["samples"]
        return Loss(error.square().sum(), error.numel())

    def generate(self, condition: Features, **options: Any) -> Tensor:
        result: Tensor = self.out(condition.mean())
        return result


class Several(Captioning):
    """Captions with the backbone beside any further decoders; their tokenizers learn its texts."""

    def __init__(self, *, prompt: str, target: str, others: dict[str, str]) -> None:
        super().__init__(prompt=prompt, target=target)
        uses = {name: DecoderUse(role=role) for name, role in others.items()}
        self.decoders = {**self.decoders, **uses}

    def fit_examples(self, part: str, row: Mapping[str, Any]) -> Iterable[Any]:
        known = {f"{name}.tokenizer" for name in self.decoders}
        return super().fit_examples(f"{BACKBONE}.tokenizer" if part in known else part, row)

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        result, ids = super().loss(batch, ctx), torch.ones(1, 2, dtype=torch.long)
        for name in [name for name in self.decoders if name != BACKBONE]:
            decoder = ctx.decoder(name)
            hidden = decoder(decoder.embed(ids.to(result.total.device)))
            result = replace(result, total=result.total + hidden.square().sum())
        return result


class Speak(Task):
    """Asks a decoder of another signal."""

    streams = {"image": StreamUse()}
    decoders = {"voice": DecoderUse(attention=frozenset())}

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        features, voice = ctx.encode("image"), cast(Any, ctx.decoder("voice"))
        return voice.loss(features, {"samples": torch.zeros(3)})


class Listen(Speak):
    """Takes a decoder of another signal for a language model."""

    decoders = {"voice": DecoderUse()}


def recipe(**changes: Any) -> dict[str, Any]:
    encoder = {"type": "patches", "size": 8, "patch_size": 4, "dim": 8}
    image = {"modality": "image", "encoder": encoder, "connector": "linear"}
    task: dict[str, Any] = dict(SAY)
    values = {"inputs": {"image": image}, "backbone": LLAMA, "tasks": {"say": task}}
    values |= changes
    others = {n: "student" for n in values.get("decoders", {}) if n != BACKBONE}
    if others and "tasks" not in changes:
        task |= {"type": f"{__name__}:Several", "others": others}
    return copy.deepcopy(values)


def made(**changes: Any) -> Any:
    return build(parse_recipe(recipe(**changes)))


def test_a_frozen_teacher_beside_the_backbone(tmp_path: Path) -> None:
    values = recipe()
    values["train"] = {"seed": 3}
    save_run(build(parse_recipe(values)), tmp_path / "first")
    teacher = {**LLAMA, "weights": f"{tmp_path / 'first'}:backbone", "freeze": True}
    model = made(decoders={"teacher": teacher, "small": T5})
    assert list(model.decoders) == ["backbone", "teacher", "small"]
    backbone, teacher_module = model.decoder(), model.decoder("teacher")
    assert model.backbone is backbone is not teacher_module
    assert len({id(d.tokenizer) for d in model.decoders.values()}) == 3
    assert teacher_module.tokenizer.decode(teacher_module.tokenizer.encode("seven")) == "seven"
    assert not teacher_module.training and backbone.training
    assert not any(p.requires_grad for p in teacher_module.parameters())
    weights = load_file(tmp_path / "first" / "model.safetensors")
    for name, value in teacher_module.state_dict().items():
        torch.testing.assert_close(value, weights[f"decoders.backbone.{name}"], rtol=0, atol=0)
    trained = {
        id(p)
        for g in build_optimizer(model, model.plan.recipe.train).param_groups
        for p in g["params"]
    }
    assert not trained & {id(p) for p in teacher_module.parameters()}
    resolved = model.plan.recipe.decoders
    assert {
        name: section.options["config"]["model_type"] for name, section in resolved.items()
    } == {"teacher": "llama", "small": "t5"}
    run = tmp_path / "second"
    save_run(model, run)
    saved = load_file(run / "model.safetensors")
    assert [key for key in saved if key.startswith("decoders.teacher.")]  # "first" may move
    assert [key for key in saved if key.startswith("decoders.small.")]
    prints = json.loads((run / "fingerprints.json").read_text("utf-8"))
    assert [name for name in prints if not name.endswith(".processor")] == []
    fitted = {path.name for path in (run / "fitted").glob("*.json")}
    assert fitted == {
        f"{place}.tokenizer.json" for place in ("backbone", "decoders.teacher", "decoders.small")
    }
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    again = load_model(run)
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_the_teachers_tokenizer_is_that_of_its_weights(tmp_path: Path) -> None:
    """It is read from the run, not fitted on other texts."""
    save_run(made(), tmp_path / "first")
    teacher = {**LLAMA, "weights": f"{tmp_path / 'first'}:backbone"}
    other = recipe(decoders={"teacher": teacher})
    other["tasks"]["say"]["target"] = "{caption}"
    model = build(parse_recipe(other))
    first = json.loads((tmp_path / "first/fitted/backbone.tokenizer.json").read_text("utf-8"))
    assert json.loads(json.dumps(model.decoder("teacher").tokenizer.state())) == first
    assert json.loads(json.dumps(model.decoder().tokenizer.state())) != first


def test_backbone_is_short_for_the_decoder_of_that_name(tmp_path: Path) -> None:
    values = recipe(decoders={"backbone": LLAMA, "teacher": LLAMA})
    del values["backbone"]
    long, short = build(parse_recipe(values)), made(decoders={"teacher": LLAMA})
    torch.testing.assert_close(long.state_dict(), short.state_dict(), rtol=0, atol=0)
    long.plan.recipe.write(tmp_path / "recipe.yaml")
    again = load_recipe(tmp_path / "recipe.yaml")
    assert again.to_dict() == long.plan.recipe.to_dict() == short.plan.recipe.to_dict()


def voice(**keys: Any) -> dict[str, Any]:
    """A recipe whose only decoder generates a signal."""
    values = recipe(tasks={"speak": {"type": f"{__name__}:Speak", "data": DATA}})
    del values["backbone"]
    return values | {"decoders": {"voice": {"type": f"{__name__}:Waves", "samples": 3, **keys}}}


def test_a_decoder_of_another_signal(tmp_path: Path) -> None:
    values = voice(lr=0.5) | {"train": {"steps": 2, "batch_size": 4}}
    model = train(parse_recipe(values), tmp_path / "run", show=False)
    assert model.backbone is None
    before = build(parse_recipe(values)).state_dict()["decoders.voice.out.bias"]
    assert not torch.equal(model.state_dict()["decoders.voice.out.bias"].cpu(), before)
    generated = model.decoder("voice").generate(Features.dense(torch.randn(2, 4, 8)))
    assert generated.shape == (2, 3)
    rates = {g["base_lr"] for g in build_optimizer(model, model.plan.recipe.train).param_groups}
    assert 0.5 in rates


def test_a_teacher_is_given_no_weights_that_train(tmp_path: Path) -> None:
    values = recipe(decoders={"teacher": LLAMA})
    values["tasks"]["say"]["others"] = {"teacher": "teacher"}
    with pytest.raises(ConfigError, match=r"decoders\.teacher: trains, and is the target of"):
        build(parse_recipe(values))
    values["decoders"]["teacher"]["freeze"] = True
    values["train"] = {"steps": 2, "batch_size": 4}
    before = build(parse_recipe(values)).decoder("teacher").state_dict()
    model = train(parse_recipe(values), tmp_path / "run", show=False)
    after = {k: v.cpu() for k, v in model.decoder("teacher").state_dict().items()}
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_a_decoder_does_what_its_task_asks() -> None:
    values = voice()
    values["tasks"]["speak"]["type"] = f"{__name__}:Listen"
    with pytest.raises(ConfigError, match=r"tasks\.speak: voice: Waves does not support causal"):
        build(parse_recipe(values))


def test_check_lists_them() -> None:
    report = check(parse_recipe(recipe(decoders={"teacher": {**LLAMA, "freeze": True}})))
    stages = {stage.where: stage for stage in report.components}
    assert stages["decoders.teacher"].trained == 0 and stages["decoders.teacher"].parameters > 0
    assert any("decoders.teacher is frozen at random weights" in note for note in report.notes)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "both at once": (
        {"decoders": {"backbone": LLAMA}},
        r"decoders\.backbone: backbone is short for it, and is there too; take one out",
    ),
    "a name that is none": ({"decoders": {"a b": LLAMA}}, r"decoders\.a b: a name is letters"),
    "a name of torch's": ({"decoders": {"keys": LLAMA}}, r"decoders\.keys: .* use keys_1"),
    "an unknown type": (
        {"decoders": {"teacher": {"type": "casual"}}},
        r"decoders\.teacher\.type: no decoder is called 'casual'; did you mean 'causal'",
    ),
    "no decoder at all": (
        {"decoders": {"teacher": {"type": "sensorium.connectors.projectors:MLP"}}},
        r"decoders\.teacher\.type: .* is no decoder; expected a class that inherits",
    ),
    "a backbone that is no language model": (
        {"backbone": {"type": f"{__name__}:Waves"}}, r"backbone\.type: .* is no backbone"
    ),
    "one that no task uses": (
        {"tasks": {"say": SAY}, "decoders": {"teacher": LLAMA}},
        r"decoders\.teacher: no task uses it and no stream shares it; take it out",
    ),
    "one that is not there": (
        {"tasks": {"speak": {"type": f"{__name__}:Speak"}}, "decoders": {"voices": LLAMA}},
        r"tasks\.speak: uses the decoder 'voice', which is not among .* did you mean 'voices'",
    ),
    "an option": (
        {"decoders": {"teacher": {**LLAMA, "tokeniser": "bpe"}}},
        r"decoders\.teacher\.tokeniser: .*did you mean 'tokenizer'",
    ),
    "a run without it": (
        {"decoders": {"teacher": {**LLAMA, "weights": "runs/none"}}},
        r"decoders\.teacher\.weights: found 'runs/none'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(mistake: str) -> None:
    changes, line = MISTAKES[mistake]
    with pytest.raises(ConfigError, match=line) as error:
        made(**changes)
    assert "\n" not in str(error.value)


def test_an_unknown_decoder_is_named() -> None:
    with pytest.raises(ValueError, match="there is no decoder 'techer'; did you mean 'teacher'"):
        made(decoders={"teacher": LLAMA}).decoder("techer")
