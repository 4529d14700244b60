"""A task that wants ids of its own: rows added to the decoder, trained, saved, checked at load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sensorium.backbones.base import Backbone
from sensorium.engine.checkpoint import load_model, save_run
from sensorium.engine.model import Model, compose, resolve_and_fit
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Loss
from sensorium.tasks.base import Context, Task
from sensorium.tasks.batch import Batch
from sensorium.tasks.uses import DecoderUse, StreamUse

IMAGE = {
    "modality": "image",
    "encoder": {"type": "patches", "size": 8, "patch_size": 4, "dim": 8, "weights": "none"},
    "connector": "linear",
}
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
BACKBONE = {
    "type": "causal",
    "name": "tiny-llama",
    "tokenizer": "bytes",
    "options": {**SMALL, "num_attention_heads": 2, "num_key_value_heads": 2},
}


class Pointing(Task):
    """Looks at one of three ids of its own after a picture."""

    decoders = {"backbone": DecoderUse()}
    streams = {"image": StreamUse(width="backbone")}
    ids: Tensor

    def __init__(self, *, number: int = 3) -> None:
        super().__init__()
        self.number = number

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Backbone]) -> None:
        backbone = decoders["backbone"]
        first = backbone.add_tokens(self.number)
        self.own = list(range(first, first + self.number))
        self.register_buffer("ids", torch.tensor(self.own))
        self.query = nn.Parameter(torch.randn(1, backbone.dim))

    def validate_loaded(self) -> None:
        if self.ids.tolist() != self.own:
            raise ValueError(f"ids: found {self.ids.tolist()}, expected {self.own}")

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        backbone = ctx.decoder()
        embeds = self.query.expand(len(batch), 1, -1) + backbone.embed(self.ids[:1])
        logits = backbone.logits(backbone(embeds, context=ctx.encode("image")), self.ids)
        return Loss(-logits.log_softmax(-1)[..., 0].sum(), len(batch))

    def example_rows(self) -> list[dict[str, Any]]:
        return [{}, {}]


def recipe(backbone: dict[str, Any] | None = None, **tasks: Any) -> Any:
    task = {"type": f"{__name__}:Pointing"}
    named = {name: {**task, **options} for name, options in tasks.items()} or {"point": task}
    result = {"inputs": {"image": IMAGE}, "backbone": {**BACKBONE, **(backbone or {})}}
    return parse_recipe({**result, "tasks": named})


def build(*args: Any, seed: int = 0, **tasks: Any) -> Model:
    return compose(resolve_and_fit(recipe(*args, **tasks)), seed=seed)


def rows(model: Model) -> dict[str, Tensor]:
    assert model.backbone is not None
    return {
        k: v
        for k, v in model.backbone.state_dict().items()
        if k in model.backbone.added_token_parameters()
    }


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_task_has_ids_after_the_others() -> None:
    model = build(a={}, b={"number": 2})
    first, second = model.task("a").own, model.task("b").own
    assert [*first, *second] == list(range(first[0], first[0] + 5))
    assert {len(r) for r in rows(model).values()} == {5}


@pytest.mark.parametrize("how", [{}, {"freeze": True}, {"lora": {"r": 2}}])
def test_the_rows_train_whatever_is_frozen(how: dict[str, Any]) -> None:
    model = build(how)
    batch = Batch(
        "point",
        ["0"],
        [{}],
        streams={"image": {"main": {"pixel_values": torch.ones(1, 3, 8, 8)}}},
    )
    model(batch).total.backward()
    assert model.backbone is not None
    trained = {n for n, p in model.backbone.named_parameters() if p.grad is not None}
    assert trained >= model.backbone.added_token_parameters()
    frozen = how.get("freeze", False)
    assert not frozen or trained == model.backbone.added_token_parameters()


def test_the_rows_depend_on_the_seed_alone() -> None:
    again, other = rows(build()), rows(build(seed=1))
    torch.manual_seed(9)
    for name, value in rows(build()).items():
        torch.testing.assert_close(value, again[name])
        assert not torch.equal(value, other[name])


def test_a_run_brings_its_rows_back() -> None:
    model = build(seed=3)
    save_run(model, Path("run"))
    for result in (rows(load_model("run")), rows(build({"weights": "run"}))):
        for name, value in rows(model).items():
            torch.testing.assert_close(result[name], value)


def test_a_decoder_without_such_rows_can_be_begun_with() -> None:
    bare = {"type": "captioning", "prompt": "<image>", "data": {}}
    data = {"train": {"source": "digits", "split": "train", "limit": 4}}
    save_run(build(point={**bare, "data": data}), Path("bare"))
    model = build({"weights": "bare", "freeze": True})
    assert rows(model)
    saved = load_file("bare/model.safetensors")
    assert model.backbone is not None
    for name, value in model.backbone.state_dict().items():
        assert name in model.backbone.added_token_parameters() or torch.equal(
            saved[f"decoders.backbone.{name}"], value
        )


def test_ids_that_moved_are_refused() -> None:
    save_run(build(), Path("run"))
    tensors = load_file("run/model.safetensors")
    tensors["tasks.point.ids"] += 1
    save_file(tensors, "run/model.safetensors")
    with pytest.raises(ConfigError, match=r"run.model.safetensors: tasks\.point.*ids: found"):
        load_model("run")
    with pytest.raises(ConfigError, match=r"tasks\.point.*ids: found .* expected"):
        build(point={"weights": "run"})


def test_a_task_may_begin_with_another_of_a_run() -> None:
    save_run(build(a={}, seed=3), Path("run"))
    result = build(b={"weights": "run:a"})
    torch.testing.assert_close(result.task("b").query, build(a={}, seed=3).task("a").query)
