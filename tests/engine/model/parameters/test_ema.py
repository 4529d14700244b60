"""Averages of encoders that a task asks for: begun, followed, saved, resumed, taken as weights."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sensorium.engine.checkpoint import load_model, read_tensors, saved_tensors
from sensorium.engine.evaluation import evaluate
from sensorium.engine.inference import load
from sensorium.engine.model import Model, compose
from sensorium.engine.recipe import parse_recipe, plan_recipe
from sensorium.engine.utils import ConfigError, RuntimeFailure, read_metrics
from sensorium.modalities.base import Encoder, Features, Loss, Sample
from sensorium.modalities.image.processor import TimmProcessor
from sensorium.tasks.base import Context, StopTraining, Task
from sensorium.tasks.batch import Batch
from sensorium.tasks.uses import StreamUse


class Tokens(Encoder):
    """Patches of 4 px with a mask token; dropout and a batch norm on request."""

    supports = frozenset({"token_mask"})

    def __init__(self, *, dim: int = 8, dropout: float = 0.3, norm: bool = True) -> None:
        super().__init__()
        self.dim, self.processor = dim, TimmProcessor((3, 16, 16))
        self.patch = nn.Conv2d(3, dim, 4, 4)
        self.norm = nn.BatchNorm2d(dim) if norm else nn.Identity()
        self.mask_token, self.dropout = nn.Parameter(torch.ones(dim)), nn.Dropout(dropout)
        self.mix = nn.Linear(dim, dim)

    def forward(self, pixel_values: Tensor, token_mask: Tensor | None = None) -> Features:
        patches = self.norm(self.patch(pixel_values))
        grid = (patches.shape[2], patches.shape[3])
        tokens = patches.flatten(2).transpose(1, 2)
        if token_mask is not None:
            tokens = torch.where(token_mask[..., None], self.mask_token, tokens)
        tokens = self.dropout(torch.tanh(self.mix(tokens)))
        return Features.dense(tokens, grid=grid, pooled=tokens.mean(1))


class Half(Task):
    """Draws the stream's vectors to their average's; `halts` at a step."""

    def __init__(self, *, stream: str = "image", halts: int = 0, share: float = 0.5) -> None:
        super().__init__()
        self.stream, self.streams = stream, {stream: StreamUse(ema=True)}
        self.halts, self.share, self.told = halts, share, [0.0]

    def on_step_end(self, ctx: Context) -> None:
        if ctx.step == self.halts:
            raise StopTraining("found nothing, expected something; look again")

    def ema_decay(self, progress: float) -> float:
        self.told.append(progress)
        return self.share

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        goal = ctx.encode(f"{self.stream}.ema").pool()
        assert not goal.requires_grad
        return Loss((ctx.encode(self.stream).pool() - goal - 1).square().sum(), len(batch))

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        return [0] * len(batch)

    def example_rows(self) -> list[dict[str, Any]]:
        return [{}, {}]


HALF: dict[str, Any] = {
    "inputs": {"image": {"modality": "image", "encoder": {"type": f"{__name__}:Tokens"}}},
    "tasks": {
        "near": {
            "type": f"{__name__}:Half",
            "data": {"train": {"source": "digits", "split": "train", "limit": 32}},
        }
    },
    "train": {
        "steps": 6,
        "batch_size": 8,
        "optimizer": {"lr": 0.02},
        "log_every": 1,
        "checkpoint": {"every": 2},
    },
}
DINO = {
    "type": "dino",
    "input": "image",
    "size": 16,
    "local_size": 8,
    "local_crops": 1,
    "prototypes": 16,
    "hidden": 12,
    "bottleneck": 6,
    "data": {"train": {"source": "digits", "split": "train", "limit": 32}},
}
SELF: dict[str, Any] = {**HALF, "tasks": {"dino": DINO}}


def composed(recipe: dict[str, Any]) -> Model:
    return compose(plan_recipe(parse_recipe(recipe)))


def parameters(module: nn.Module | None) -> Tensor:
    assert module is not None
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_the_average_begins_as_the_encoder_and_stays_still() -> None:
    model = composed(HALF).train()
    stream = model.stream("image")
    assert stream.ema is not None and stream.encoder.training
    assert torch.equal(parameters(stream.ema), parameters(stream.encoder))
    assert not any(m.training for m in stream.ema.modules())
    assert not any(p.requires_grad for p in stream.ema.parameters())
    assert "streams.image.ema.mix.weight" in saved_tensors(model)
    batch = Batch("near", ["a", "b"], [{}] * 2)
    batch.streams["image"] = {"main": {"pixel_values": torch.randn(2, 3, 16, 16)}}
    encode = model.context(batch).encode
    assert encode("image.ema") is encode("image.ema")  # runs once, as any stream does
    assert not encode("image.ema").tokens.requires_grad
    assert encode("image.encoder").tokens.requires_grad


def test_a_stream_without_an_average_has_no_such_point() -> None:
    model = composed(HALF)
    model.stream("image").ema = None
    batch = Batch("near", [], [], streams={"image": {"main": {}}})
    with pytest.raises(ValueError, match="no point 'ema' here"):
        model.context(batch).encode("image.ema")


def _data() -> dict[str, Any]:
    return {"data": {"train": {"source": "digits", "split": "train", "limit": 16}}}


def test_it_follows_after_each_step(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`a = (a + w) / 2` of what the encoder was after each step."""
    from sensorium.engine.model.parameters import ema

    seen: list[Tensor] = []
    real = ema.ema_update

    def follow(average: nn.Module, module: nn.Module, momentum: float) -> None:
        seen.append(parameters(module))
        real(average, module, momentum)

    monkeypatch.setattr(ema, "ema_update", follow)
    begin = parameters(composed(HALF).stream("image").encoder)
    model = runner.train(HALF, "run")
    for weights in seen:
        begin = (begin + weights) / 2
    torch.testing.assert_close(parameters(model.stream("image").ema), begin)
    assert model.task("near").told == pytest.approx([0, *((i + 1) / 6 for i in range(6))])


@pytest.mark.parametrize("recipe", [HALF, SELF], ids=["near", "dino"])
def test_it_resumes_bit_for_bit(runner: Any, recipe: dict[str, Any]) -> None:
    whole = runner.train(recipe, "whole")
    runner.cut(recipe, "cut", 5)  # behind checkpoint 4
    resumed = runner.train(recipe, "cut", resume=True)
    assert runner.losses("cut") == runner.losses("whole")
    state, other = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state)
    assert any(name.startswith("streams.image.ema.") for name in state)


def test_its_weights_are_those_of_the_next_recipe(runner: Any) -> None:
    first = runner.train(SELF, "first")
    stream = first.stream("image")
    assert not torch.equal(parameters(stream.ema), parameters(stream.encoder))

    def begun(weights: str) -> Tensor:
        encoder = {"type": f"{__name__}:Tokens", "weights": weights, "freeze": True}
        tasks = {"digit": {"type": "classification", "input": "image", "target": "word", **_data()}}
        inputs = {"image": {"modality": "image", "encoder": encoder}}
        plan = plan_recipe(parse_recipe({"inputs": inputs, "tasks": tasks}))
        for part in plan.fitted().values():
            part.fit([{"word": "one"}, {"word": "two"}])
        return parameters(compose(plan).stream("image").encoder)

    folder = runner.folder / "first"
    assert torch.equal(begun(str(folder)), parameters(stream.encoder))
    assert torch.equal(begun(f"{folder}:image.ema"), parameters(stream.ema))
    again = load_model(folder).stream("image")
    assert torch.equal(parameters(again.ema), parameters(stream.ema))
    with pytest.raises(ConfigError, match=r"has no inputs\.scan"):
        begun(f"{folder}:scan.ema")


def test_a_run_without_an_average_says_so(runner: Any) -> None:
    runner.train(runner.recipe({"train": {"steps": 1}}), "plain")
    encoder = {"type": "tiny_parts:Tiny", "weights": f"{runner.folder}/plain:image.ema"}
    recipe = runner.recipe({"inputs": {"image": {"encoder": encoder}}, "train": {"steps": 1}})
    with pytest.raises(ConfigError, match=r"keeps no average of image; take .*plain:image"):
        runner.train(recipe, "next")


def test_what_a_task_found_stops_the_run(runner: Any) -> None:
    recipe = runner.changed(HALF, {"tasks": {"near": {"halts": 3}}})
    with pytest.raises(
        RuntimeFailure, match=r"^step 3: tasks\.near: found nothing, expected something"
    ):
        runner.train(recipe, "run")


def test_a_frozen_encoder_and_two_averages_are_refused(runner: Any) -> None:
    frozen = {"inputs": {"image": {"encoder": {"freeze": True}}}}
    with pytest.raises(ConfigError, match=r"inputs.image.encoder: is frozen, and tasks.near"):
        composed(runner.changed(HALF, frozen))
    with pytest.raises(ConfigError, match=r"tasks.other: keeps an average of inputs.image"):
        composed(runner.changed(HALF, {"tasks": {"other": HALF["tasks"]["near"]}}))


def test_views_are_varied_by_themselves_where_the_task_says_so() -> None:
    from sensorium.engine.data import TaskDataset
    from sensorium.engine.data.dataset import StreamReader
    from sensorium.modalities.base import Processor
    from sensorium.modalities.image.datasets.digits import Digits

    class Same(Processor):
        def prepare(self, raw: Any) -> Sample:
            return {"pixel_values": torch.zeros(3, 8, 8)}

    def moved(sample: Sample, rng: np.random.Generator) -> Sample:
        return {key: value + float(rng.random()) for key, value in sample.items()}

    class Twice(Half):
        def views(self, stream: str, sample: Sample, rng: np.random.Generator) -> dict[str, Sample]:
            return {"a": dict(sample), "b": dict(sample)}

    task = Twice()
    readers = {"image": StreamReader(lambda cell: cell, Same(), moved)}
    rows = TaskDataset(Digits(split="train"), readers, "near", task, training=True)
    alike = rows.prepare(0).samples["image"][0]
    assert torch.equal(alike["a"]["pixel_values"], alike["b"]["pixel_values"])
    task.streams = {"image": StreamUse(ema=True, views=True, augment="view")}
    apart = rows.prepare(0).samples["image"][0]
    assert not torch.equal(apart["a"]["pixel_values"], apart["b"]["pixel_values"])
    again = rows.prepare(0).samples["image"][0]
    assert torch.equal(apart["a"]["pixel_values"], again["a"]["pixel_values"])


def test_a_self_supervised_run_says_what_its_teacher_does(runner: Any) -> None:
    test = {
        "tasks": {"dino": {"data": {"test": {"source": "digits", "split": "test", "limit": 9}}}}
    }
    runner.train(runner.changed(SELF, test), "run")
    lines = read_metrics(runner.folder / "run")
    assert all({"vector", "token", "koleo", "entropy", "rank"} <= set(line) for line in lines[:6])
    result = evaluate(load_model(runner.folder / "run"))["dino"]
    assert 1 <= result["rank"] <= 8 and 0 <= result["spread"] <= 1
    assert load(runner.folder / "run").embed(image=np.zeros((8, 8, 3), np.uint8)).shape == (1, 8)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(runner: Any) -> None:
    """Targets are centred over the rows of both; masks, which each draws by itself, left out."""
    shutil.copy(__file__, runner.folder / "averages_parts.py")
    plain = {"type": "averages_parts:Tokens", "dropout": 0.0, "norm": False}
    options = {"masked_fraction": 0.0, "koleo_weight": 0.0}
    change = {"inputs": {"image": {"encoder": plain}}, "tasks": {"dino": options}}
    recipe = runner.changed(SELF, change, {"train": {"steps": 3}})
    one = runner.go(recipe, "one")
    assert one.returncode == 0, one.stderr
    two = runner.go(runner.changed(recipe, {"train": {"batch_size": 4}}), "two", processes=2)
    assert two.returncode == 0, two.stderr
    lines = [read_metrics(runner.folder / name) for name in ("one", "two")]
    for key in ("loss", "vector", "entropy", "rank"):
        values = [[line[key] for line in run if key in line] for run in lines]
        assert values[1] == pytest.approx(values[0], rel=1e-4), key


def test_exact_tensors_of_a_checkpoint_hold_the_teacher(runner: Any) -> None:
    runner.train(SELF, "run")
    newest = max((runner.folder / "run" / "checkpoints").glob("step-*"))
    tensors = read_tensors(newest / "model.safetensors")
    assert {"streams.image.ema.mix.weight", "tasks.dino.teacher.vector.prototypes"} <= set(tensors)
