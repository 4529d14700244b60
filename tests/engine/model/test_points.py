"""The points of a stream that a task may look at: its end, its encoder's; and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from sensorium.engine.evaluation import evaluate
from sensorium.engine.inference import Pipeline
from sensorium.engine.model import Model, compose
from sensorium.engine.recipe import parse_recipe, plan_recipe
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Features, Loss
from sensorium.tasks.base import Context, Task
from sensorium.tasks.batch import Batch
from sensorium.tasks.uses import HeadUse, StreamUse


class TwoPoints(Task):
    """A head on the encoder's tokens, another on the connector's."""

    head_types = {"before": "linear", "behind": "linear"}

    def __init__(self, *, stream: str = "image") -> None:
        super().__init__()
        self.streams = {stream: StreamUse()}

    @property
    def head_uses(self) -> dict[str, HeadUse]:
        streams = {"before": "image.encoder", "behind": "image"}
        return {name: HeadUse(stream=stream, out_dim=3) for name, stream in streams.items()}

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        heads = {n: self.heads[n](ctx.encode(use.stream)) for n, use in self.head_uses.items()}
        total: Tensor = torch.stack([f.pool().sum() for f in heads.values()]).sum()
        return Loss(total, len(batch))

    def example_rows(self) -> list[dict[str, Any]]:
        return []


@pytest.fixture(scope="module")
def model() -> Model:
    encoder = {"type": "patches", "size": 8, "patch_size": 4, "dim": 8, "weights": "none"}
    recipe = {
        "inputs": {
            "image": {
                "modality": "image",
                "encoder": encoder,
                "connector": {"type": "stack", "factor": 2},
            }
        },
        "tasks": {"two": {"type": f"{__name__}:TwoPoints"}},
    }
    return compose(plan_recipe(parse_recipe(recipe)))


@pytest.fixture
def batch(model: Model) -> Batch:
    inputs = {"pixel_values": torch.randn(2, 3, 8, 8)}
    return Batch("two", ["0", "1"], [{}, {}], streams={"image": {"main": inputs}})


def test_the_encoders_features_are_the_connectors_input(model: Model, batch: Batch) -> None:
    encode, stream = model.context(batch).encode, model.stream("image")
    before, behind = encode("image.encoder"), encode("image")
    assert before.tokens.shape == (2, 4, 8) and behind.tokens.shape[1] == 2
    torch.testing.assert_close(stream(before).tokens, behind.tokens)


@pytest.mark.parametrize("order", [("image", "image.encoder"), ("image.encoder", "image")])
def test_the_encoder_runs_once_for_both(
    model: Model, batch: Batch, order: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    encoder = model.stream("image").encoder
    original = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda **k: (runs.append(1), original(**k))[1])
    encode = model.context(batch).encode
    for point in order:
        encode(point)
    assert len(runs) == 1


@pytest.mark.parametrize("chunk", [None, 1])
def test_points_are_the_same_from_stored_features(
    model: Model, batch: Batch, chunk: int | None
) -> None:
    stored: Features = model.context(batch).encode("image.encoder")
    again = Batch("two", batch.keys, batch.references, features={"image": stored})
    for point in ("image.encoder", "image"):
        result = model.context(again).encode(point, chunk=chunk)
        torch.testing.assert_close(result.tokens, model.context(batch).encode(point).tokens)


def test_heads_are_built_for_the_point_they_read(model: Model, batch: Batch) -> None:
    heads = model.task("two").heads
    assert (heads["before"].in_dim, heads["behind"].in_dim) == (8, model.stream("image").dim)
    model(batch).total.backward()
    assert all(p.grad is not None for p in model.parameters())


class Copied(Task):
    """Says how far a picture is from the one that holds the answer, where there is one."""

    streams = {"image": StreamUse(), "wanted": StreamUse(role="label")}

    def __init__(self) -> None:
        super().__init__()

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        mean = ctx.encode("image").mean().mean(1)
        if batch.has("wanted"):
            mean = mean - ctx.encode("wanted").mean().mean(1)
        return [{"off": float(value)} for value in mean]

    def metrics(self) -> Any:
        return Off()

    def example_rows(self) -> list[dict[str, Any]]:
        return []


class Off:
    def __init__(self) -> None:
        self.values: list[float] = []

    def update(self, predictions: Any, targets: Any) -> None:
        self.values += [p["off"] for p in predictions]

    def compute(self) -> dict[str, float]:
        return {"off": max(map(abs, self.values))}


def test_a_prediction_does_without_the_answer_and_a_score_deals_it_to_nobody(
    tmp_path: Path,
) -> None:
    encoder = {"type": "patches", "size": 8, "patch_size": 4, "dim": 8, "weights": "none"}
    stream = {"modality": "image", "encoder": encoder}
    data = {"test": {"source": "digits", "split": "test", "limit": 6}}
    data["test"]["columns"] = {"wanted": "image", "image": "image"}
    recipe = {
        "inputs": {"image": stream, "wanted": stream},
        "tasks": {"copy": {"type": f"{__name__}:Copied", "data": data}},
        "cache": {"features": False},
    }
    built = compose(plan_recipe(parse_recipe(recipe)))
    picture = Image.new("RGB", (8, 8), (9, 9, 9))
    assert set(Pipeline(built).generate("copy", image=picture)) == {"off"}
    result = evaluate(built)["copy"]
    assert "off_image_shuffled" in result and "off_wanted_shuffled" not in result
    with pytest.raises(ConfigError, match="needs image"):
        Pipeline(built).generate("copy", wanted=picture)


@pytest.mark.parametrize("name", ["half", "float"])
@pytest.mark.parametrize("room", ["inputs", "tasks"])
def test_a_name_that_torch_uses_is_refused(name: str, room: str) -> None:
    encoder = {"type": "patches", "size": 8, "patch_size": 4, "dim": 8, "weights": "none"}
    stream, task = (name, "two") if room == "inputs" else ("image", name)
    recipe = {
        "inputs": {stream: {"modality": "image", "encoder": encoder}},
        "tasks": {task: {"type": f"{__name__}:TwoPoints", "stream": stream}},
    }
    with pytest.raises(ConfigError, match=f"{room}.{name}: the name '{name}' is one"):
        plan_recipe(parse_recipe(recipe))
