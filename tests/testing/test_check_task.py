"""`check_task` names what a task violates, in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.modalities.base import Features, Loss
from sensorium.tasks.base import Task
from sensorium.tasks.batch import Batch, Example
from sensorium.tasks.uses import BACKBONE, DecoderUse, HeadUse, StreamUse
from sensorium.testing import check_task


class Error:
    """Mean squared error."""

    def __init__(self) -> None:
        self.errors: list[float] = []

    def update(self, predictions: Sequence[Any], references: Sequence[Mapping[str, Any]]) -> None:
        pairs = zip(predictions, references, strict=True)
        self.errors += [(p["value"] - r["value"]) ** 2 for p, r in pairs]

    def compute(self) -> dict[str, float]:
        return {"mse": sum(self.errors) / len(self.errors)}


class Good(Task):
    """One number of a stream, by a head."""

    head_types = {"head": "linear"}

    def __init__(self, *, stream: str = "image") -> None:
        super().__init__()
        self.stream = stream
        self.streams = {stream: StreamUse()}

    @property
    def head_uses(self) -> dict[str, HeadUse]:
        return {"head": HeadUse(stream=self.stream, out_dim=1)}

    def columns(self) -> tuple[str, ...]:
        return ("value",)

    def prepare(self, row: Any, tools: Any, rng: Any) -> Example:
        if "value" not in row:
            return Example()
        return Example({"value": torch.tensor(float(row["value"]))}, {"value": row["value"]})

    def values(self, ctx: Any) -> Tensor:
        head: Features = self.heads["head"](ctx.encode(self.stream))
        return head.pool()[:, 0]

    def loss(self, batch: Batch, ctx: Any) -> Loss:
        return Loss(
            F.mse_loss(self.values(ctx), batch.labels["value"], reduction="sum"), len(batch)
        )

    def predict(self, batch: Batch, ctx: Any, **options: Any) -> list[Any]:
        return [{"value": value} for value in self.values(ctx).tolist()]

    def metrics(self) -> Error:
        return Error()

    def example_rows(self) -> list[dict[str, Any]]:
        return [{"value": 1.0}, {"value": 2.5}, {"value": 0.0}]


class Language(Good):
    """The next token of a text."""

    head_types = {}
    decoders = {BACKBONE: DecoderUse()}

    def __init__(self) -> None:
        Task.__init__(self)
        self.streams = {}

    @property
    def head_uses(self) -> dict[str, HeadUse]:
        return {}

    def columns(self) -> tuple[str, ...]:
        return ("text",)

    def prepare(self, row: Any, tools: Any, rng: Any) -> Example:
        ids = tools.tokenizer().encode(row.get("text", "?!"))
        return Example({"ids": torch.tensor(ids)}, {"value": 0.0})

    def loss(self, batch: Batch, ctx: Any) -> Loss:
        ids, mask = batch.labels["ids"], batch.label_masks["ids"].to(batch.labels["ids"].device)
        decoder = ctx.decoder()
        logits = decoder.logits(decoder(decoder.embed(ids[:, :-1]), mask[:, :-1]))
        each = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        return Loss((each * mask[:, 1:]).sum(), mask[:, 1:].sum())

    def predict(self, batch: Batch, ctx: Any, **options: Any) -> list[Any]:
        return [{"value": 0.0} for _ in batch.keys]

    def example_rows(self) -> list[dict[str, Any]]:
        return [{"text": "one"}, {"text": "a three"}]


class Averaging(Good):
    def loss(self, batch: Batch, ctx: Any) -> Loss:
        return Loss(F.mse_loss(self.values(ctx), batch.labels["value"]), len(batch))


class ReadingPadding(Good):
    def values(self, ctx: Any) -> Tensor:
        features = ctx.encode(self.stream)
        every = features.replace(mask=torch.ones_like(features.mask))
        return self.heads["head"](every).pool()[:, 0]


class Ignoring(Good):
    def __init__(self) -> None:
        super().__init__()
        self.streams = {"image": StreamUse(), "sound": StreamUse()}


class Teaching(Good):
    """Its target is another stream, which it calls a label."""

    def __init__(self) -> None:
        super().__init__()
        self.streams = {"image": StreamUse(), "mask": StreamUse(role="label")}

    def loss(self, batch: Batch, ctx: Any) -> Loss:
        goal = ctx.encode("mask").mean().sum(-1)
        return Loss(F.mse_loss(self.values(ctx), goal, reduction="sum"), len(batch))


class Lacking(Good):
    def columns(self) -> tuple[str, ...]:
        return ("value", "weight")


class Random(Good):
    def prepare(self, row: Any, tools: Any, rng: Any) -> Example:
        return Example({"value": torch.rand(())}, {"value": 0.0})


class Listed(Good):
    def prepare(self, row: Any, tools: Any, rng: Any) -> Example:
        return Example(super().prepare(row, tools, rng).labels, {"value": {1, 2}})


class Short(Good):
    def predict(self, batch: Batch, ctx: Any, **options: Any) -> list[Any]:
        return super().predict(batch, ctx)[:1]


class Tensors(Good):
    def predict(self, batch: Batch, ctx: Any, **options: Any) -> list[Any]:
        return list(self.values(ctx))


class Requiring(Good):
    def predict(self, batch: Batch, ctx: Any, **options: Any) -> list[Any]:
        batch.label("value", "has no value")
        return super().predict(batch, ctx)


class Reading(Good):
    def loss(self, batch: Batch, ctx: Any) -> Loss:
        loss = super().loss(batch, ctx)
        return Loss(loss.total, int(loss.total.isfinite().sum()) * len(batch))


class Idle(Good):
    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.zeros(2))


class Headless(Good):
    @property
    def head_uses(self) -> dict[str, HeadUse]:
        return {}


class Integer(Good):
    def metrics(self) -> Any:
        class Count(Error):
            def compute(self) -> dict[str, Any]:
                return {"rows": len(self.errors)}

        return Count()


class Viewing(Good):
    def __init__(self) -> None:
        super().__init__()
        self.streams = {"image": StreamUse(views=True)}


class Stranger(nn.Module):
    """No task."""


BROKEN: dict[type, str] = {
    Averaging: "loss, a sum of rows: rows and batch: they differ by up to",
    ReadingPadding: "loss, padding: padding is read",
    Ignoring: "gradients: no gradient reaches the stream sound",
    Teaching: "gradients: a gradient reaches the label stream mask",
    Lacking: "example_rows: a row lacks weight, which columns() names",
    Random: "prepare: equal rows and generators yield another example",
    Listed: "prepare: TypeError",
    Short: "predict: 1 predictions for 3 rows",
    Tensors: "predict: TypeError",
    Requiring: "predict of rows without labels: ValueError: row '0': has no value",
    Reading: "loss on the meta device: ",
    Idle: "gradients: no gradient reaches the parameter idle",
    Headless: "declarations: head_types and head_uses differ in head",
    Integer: "metrics: rows is no float",
    Viewing: "declarations: image: views=True without `views`",
    Stranger: "options: is no subclass of tasks.base.Task",
}


@pytest.mark.parametrize("options", [{}, {"stream": "sound"}, {"head": {"type": "mlp"}}])
def test_a_good_task_passes(options: dict[str, Any]) -> None:
    check_task(Good, **options)


def test_one_without_streams_passes() -> None:
    check_task(Language)


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.__name__)
def test_a_violation_is_one_line(cls: type[Task]) -> None:
    with pytest.raises(AssertionError) as error:
        check_task(cls)
    line = str(error.value)
    assert line.startswith(f"{cls.__name__}, ") and BROKEN[cls] in line, line
    assert "\n" not in line
