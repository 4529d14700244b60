"""Generation: a signal that a decoder makes from the features of other streams.

The decoder defines the loss (a denoising error, a velocity); the target is a stream whose encoder
keeps the signal itself (`pixels`), on its own grid. A prediction is a sample, drawn by a seed.

Legend: `B` rows, `T` tokens of the condition, `D` width, `C` channels of the target.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...modalities.base import Count, Decoder, Features, Loss, NonNegativeFloat, PositiveInt
from ..base import Context, Embed, Metrics, Row, Task
from ..batch import Batch, Example, Tools
from ..uses import DecoderUse, StreamUse
from .metrics import SampleMetrics, attribute_accuracy, frechet_distance
from .refiner import Refiner


class Generation(Task):
    """condition: the stream that the signal is made from, or several, whose tokens are read one
    stream after the other. second: the stream that a decoder with two conditions reads apart.
    target: the stream of signals to learn from. decoder: which of the recipe's `decoders`
    generates.

    refiner: layers of a bidirectional transformer over the tokens of all conditions, in which
    those of a causal model see what follows them, and several encoders each other (Ma et al.,
    "Exploring the Role of Large Language Models in Prompt Encoding for Diffusion Models", 2024).

    judge: a stream of the same signals whose encoder judges the samples of an evaluation:
    `frechet_distance` between its vectors of samples and of references, and, of each column of
    `attributes`, the accuracy of a linear classifier that was fitted on the references' vectors.
    """

    ability: ClassVar[str] = "draw"
    metric_names: Mapping[str, str] = {
        "mse": "mean squared error of a sample against its reference, in the target's units",
        "frechet_distance": "Frechet distance of the judge's vectors of samples to references",
    }

    def __init__(
        self,
        *,
        condition: str | list[str],
        target: str = "target",
        decoder: str = "generator",
        second: str | None = None,
        refiner: Count = 0,
        judge: str | None = None,
        attributes: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.conditions = [condition] if isinstance(condition, str) else list(condition)
        self.target, self.decoder = target, decoder
        self.second, self.judge = second, judge
        self.attributes = tuple(attributes or ())
        if not self.conditions or len(set(self.conditions)) < len(self.conditions):
            raise ValueError(f"condition: found {condition}, expected different streams")
        if {target, judge, second} & set(self.conditions) or second in (target, judge or ""):
            raise ValueError(
                "condition, second, target, judge: name one stream twice; a condition that is the "
                "target would give it away"
            )
        if self.attributes and judge is None:
            raise ValueError("attributes: are judged by a stream; set judge")
        self.refiner_layers = refiner
        self.refiner: Refiner | None = None
        self.streams = {name: StreamUse(width=decoder) for name in self.conditions}
        if second is not None:
            self.streams[second] = StreamUse(width=f"{decoder}.1")
        self.streams[target] = StreamUse(role="label")
        if judge is not None:
            self.streams[judge] = StreamUse(role="label")
        self.decoders = {decoder: DecoderUse(attention=frozenset())}

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Any]) -> None:
        if self.refiner_layers:
            self.refiner = Refiner(widths[self.conditions[0]], depth=self.refiner_layers)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Reference: the attributes that the row has."""
        return Example({}, {name: row[name] for name in self.attributes if name in row})

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the decoder's loss, a sum over rows."""
        decoder: Decoder = ctx.decoder(self.decoder)
        target = signal_of(ctx.encode(self.target))
        return decoder.loss(self._condition(ctx), target)

    def predict(
        self,
        batch: Batch,
        ctx: Context,
        *,
        steps: PositiveInt | None = None,
        guidance: NonNegativeFloat | None = None,
        seed: Count = 0,
        **options: Any,
    ) -> list[Any]:
        """Return the decoder's JSON of a sample a row; if the batch has the target, `scores`
        against it and, until it is written, `reference`. seed: with the row's key it defines the
        sample, whatever the batch."""
        decoder: Decoder = ctx.decoder(self.decoder)
        seeds = [zlib.crc32(f"{seed} {key}".encode()) for key in batch.keys]
        chosen = {"steps": steps, "guidance": guidance, **options}
        asked = {name: value for name, value in chosen.items() if value is not None}
        samples = decoder.generate(self._condition(ctx), seeds=seeds, **asked)
        rows: list[Any] = decoder.as_json(samples)
        if batch.has(self.target):
            target = signal_of(ctx.encode(self.target))["values"]
            error = (samples.float() - target.float()).square().flatten(1).mean(1)
            for row, reference, mse in zip(rows, decoder.as_json(target), error, strict=True):
                row |= {"scores": {"mse": float(mse)}, "reference": reference}
        return rows

    def metrics(self) -> Metrics:
        return SampleMetrics()

    def dataset_metrics(
        self,
        predictions: Sequence[Any],
        references: Sequence[Mapping[str, Any]],
        embed: Embed,
    ) -> dict[str, float]:
        if self.judge is None or not all("reference" in row for row in predictions):
            return {}
        kinds = [next(iter(row["reference"])) for row in predictions]
        rows = list(zip(predictions, kinds, strict=True))
        samples = embed(self.judge, [row[kind] for row, kind in rows]).double()
        real = embed(self.judge, [row["reference"][kind] for row, kind in rows]).double()
        scores = {"frechet_distance": frechet_distance(samples, real)}
        for name in self.attributes:
            labels = [str(reference.get(name)) for reference in references]
            scores |= attribute_accuracy(name, samples.numpy(), real.numpy(), labels)
        return scores

    def format_predictions(
        self,
        predictions: Sequence[Any],
        references: Sequence[Mapping[str, Any]],
        keys: Sequence[str],
    ) -> Sequence[Any]:
        return [{k: v for k, v in row.items() if k != "reference"} for row in predictions]

    def example_rows(self) -> list[dict[str, Any]]:
        return [dict.fromkeys(self.attributes, value) for value in ("red", "blue")]

    def _condition(self, ctx: Context) -> Features | list[Features]:
        """Return what the decoder reads: the tokens of the conditions, and the second one."""
        streams = [ctx.encode(name) for name in self.conditions]
        joined = streams[0]
        if len(streams) > 1:
            tokens = torch.cat([each.tokens for each in streams], 1)
            joined = Features(tokens, torch.cat([each.mask for each in streams], 1))
        joined = joined.replace(tokens=joined.tokens * joined.mask[..., None])
        joined = joined if self.refiner is None else self.refiner(joined)
        return joined if self.second is None else [joined, ctx.encode(self.second)]


def signal_of(features: Features) -> dict[str, Tensor]:
    """Return `values [B, *grid, C]` and `mask [B, *grid]` of a stream that keeps its signal."""
    grid = features.grid or features.mask.shape[1:]
    tokens = features.tokens.detach() * features.mask[..., None]
    return {"values": tokens.unflatten(1, grid), "mask": features.mask.unflatten(1, grid)}
