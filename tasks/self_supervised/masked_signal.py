"""Masked-signal modelling: the values under masked tokens, predicted from the others.

He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022; Rust et al., "Language
Modelling with Pixels" (PIXEL), 2023: for pictures, volumes, spectrograms and rendered text. The
encoder sees a learned token where a token is masked; a small decoder, used for nothing else,
predicts its values.

Legend: `B` rows, `T` tokens, `V` values of a token, `D` width.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn

from ...modalities.base import Count, Features, Loss, PositiveInt
from ..base import Context, Task
from ..batch import Batch
from ..uses import StreamUse
from .block_mask import block_mask

SPAN_WEIGHTS = (0.2, 0.2, 0.2, 0.2, 0.1, 0.1)
"""How often a span of 1 to 6 tokens is drawn (PIXEL)."""


class MaskedSignal(Task):
    """input: a stream whose encoder supports `token_mask` and `targets`.

    mask_ratio: fraction of the real tokens that are masked (MAE: 0.75 of pictures; PIXEL: 0.25 of
    text). masking: `random` tokens; `block`, boxes on the grid; `span`, runs of 1 to 6 tokens that
    do not touch. normalize: targets have mean 0 and variance 1 in each token, so that a constant
    reaches a loss of 1. width, depth, heads: of the decoder; depth 0: one linear layer.
    """

    metric_names = {"loss": "mean squared error of a value under a masked token"}

    def __init__(
        self,
        *,
        input: str,
        mask_ratio: Annotated[float, Gt(0), Lt(1)] = 0.75,
        masking: Literal["random", "block", "span"] = "random",
        normalize: bool = True,
        width: PositiveInt = 64,
        depth: Count = 1,
        heads: PositiveInt = 4,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads: found {heads} at width {width}, expected a divisor of it")
        self.input, self.mask_ratio, self.masking = input, mask_ratio, masking
        self.normalize, self.sizes = normalize, (width, depth, heads)
        self.self_supervised = frozenset({input})
        self.streams = {input: StreamUse(supports=frozenset({"token_mask", "targets"}))}

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Any]) -> None:
        width, depth, heads = self.sizes
        self.enter = nn.Linear(widths[f"{self.input}.encoder"], width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True,
                norm_first=True,
            )
            for _ in range(depth)
        )  # fmt: skip
        self.leave = nn.Linear(width, widths[f"{self.input}.targets"])

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the squared error, a mean over values, summed over masked tokens."""
        errors, masked = self._errors(batch, ctx, [ctx.generator] * len(batch))
        return Loss((errors * masked).sum(), masked.sum())

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return `loss`, the mean over masked tokens, and their number, `masked`, a row; the masks
        follow from the rows' keys."""
        seeds = [zlib.crc32(key.encode()) for key in batch.keys]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        errors, masked = self._errors(batch, ctx, generators)
        counts = masked.sum(1)
        losses = (errors.detach() * masked).sum(1) / counts.clamp(min=1)
        columns = zip(losses.tolist(), counts.tolist(), strict=True)
        return [{"loss": loss, "masked": count} for loss, count in columns]

    def _errors(
        self, batch: Batch, ctx: Context, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """Return the error of each token `[B, T]`, and which are masked."""
        truth = ctx.encode(f"{self.input}.targets")
        masked = self.masks(truth, generators)
        features = ctx.encode(f"{self.input}.encoder", token_mask=masked)
        target = truth.tokens.float()
        if self.normalize:
            variance, mean = torch.var_mean(target, -1, keepdim=True, unbiased=False)
            target = (target - mean) / (variance + 1e-6).sqrt()
        errors = (self.decode(features).float() - target).square().mean(-1)
        return errors, masked

    def decode(self, features: Features) -> Tensor:
        """Return the predicted values `[B, T, V]` of all tokens."""
        x = self.enter(features.tokens * features.mask[..., None])
        hide = torch.zeros(features.mask.shape, dtype=x.dtype, device=x.device)
        hide = hide.masked_fill(~features.mask, torch.finfo(x.dtype).min)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=hide)
        values: Tensor = self.leave(x)
        return values

    def masks(self, truth: Features, generators: Sequence[torch.Generator]) -> Tensor:
        """Return which tokens are masked `[B, T]`: of each row `mask_ratio` of the real ones, one
        or more."""
        if truth.mask.is_meta:
            return torch.ones_like(truth.mask)
        rows = []
        for real, generator in zip(truth.mask.cpu(), generators, strict=True):
            places = real.nonzero()[:, 0]
            count = min(len(places), max(1, round(self.mask_ratio * len(places))))
            if self.masking == "block" and len(places) == len(real):
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
                    rows.append(block_mask(truth.grid or (len(real),), count))
                continue
            order = (
                draw_spans(len(places), count, generator)
                if self.masking == "span"
                else torch.randperm(len(places), generator=generator)[:count]
            )
            row = torch.zeros_like(real)
            row[places[order]] = True
            rows.append(row)
        return torch.stack(rows).to(truth.mask.device)

    def metrics(self) -> MaskedMetrics:
        return MaskedMetrics()

    def example_rows(self) -> list[dict[str, Any]]:
        return [{}, {}]


def draw_spans(length: int, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` places of `[0, length)`: spans of 1 to 6, with at least one place between them
    where there is room for it."""
    weights, spans, left = torch.tensor(SPAN_WEIGHTS), [], count
    while left:
        drawn = int(torch.multinomial(weights, 1, generator=generator)) + 1
        spans.append(min(drawn, left))
        left -= spans[-1]
    while len(spans) > 1 and len(spans) - 1 > length - count:  # too many for a gap each
        spans.sort()
        spans[:2] = [spans[0] + spans[1]]
    order = torch.randperm(len(spans), generator=generator)
    spare = length - count - (len(spans) - 1)
    cuts = torch.randint(spare + 1, (len(spans),), generator=generator).sort().values
    places: list[int] = []
    start = before = 0
    for index, cut in zip(order.tolist(), cuts.tolist(), strict=True):
        start += cut - before
        before = cut
        places += range(start, start + spans[index])
        start += spans[index] + 1
    return torch.tensor(places, dtype=torch.long)


class MaskedMetrics:
    """loss: mean over all masked tokens."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        for row in predictions:
            self.total += row["loss"] * row["masked"]
            self.count += row["masked"]

    def compute(self) -> dict[str, float]:
        if not self.count:
            raise ValueError("masked signal: no row was accumulated; is the split empty?")
        return {"loss": self.total / self.count}
