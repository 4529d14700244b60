"""Masked contrastive learning: which quantized vector lies under a masked token.

Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations",
2020, for encoders with a quantizer: pre-training from nothing, or continued from a checkpoint.

Legend: `B` rows, `T` tokens, `M` masked tokens of the batch, `K` negatives, `P` width, `V` codes.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from torch import Tensor
from torch.nn import functional as F

from ...modalities.base import Features, Loss, NonNegativeFloat, PositiveFloat, PositiveInt
from ..base import Context, Task
from ..batch import Batch
from ..uses import StreamUse


class MaskedContrast(Task):
    """input: a stream whose encoder supports `token_mask`, `targets` and `quantizer`.

    mask_prob, mask_length: of the real tokens, `mask_prob * T / mask_length` spans of `mask_length`
    tokens are masked; they may overlap. negatives: other masked tokens of the row that the vector
    is told from. temperature: of their cosines. diversity_weight: of the loss that keeps codes in
    use. gumbel_temperature: of the quantizer, at first and at last, lowered by the factor
    `gumbel_decay` a step.
    """

    metric_names = {
        "loss": "cross-entropy of the vector under a masked token among its negatives",
        "accuracy": "fraction of masked tokens whose vector is nearer than all negatives",
    }

    def __init__(
        self,
        *,
        input: str,
        mask_prob: Annotated[float, Gt(0), Le(1)] = 0.65,
        mask_length: PositiveInt = 10,
        negatives: PositiveInt = 100,
        temperature: PositiveFloat = 0.1,
        diversity_weight: NonNegativeFloat = 0.1,
        gumbel_temperature: tuple[PositiveFloat, PositiveFloat] = (2.0, 0.5),
        gumbel_decay: Annotated[float, Gt(0), Le(1)] = 0.999995,
    ) -> None:
        super().__init__()
        self.input, self.mask_prob, self.mask_length = input, mask_prob, mask_length
        self.negatives, self.temperature = negatives, temperature
        self.diversity_weight = diversity_weight
        self.gumbel_temperature, self.gumbel_decay = gumbel_temperature, gumbel_decay
        abilities = frozenset({"token_mask", "targets", "quantizer"})
        self.self_supervised = frozenset({input})
        self.streams = {input: StreamUse(supports=abilities)}

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the contrastive loss and `diversity_weight` times the diversity loss, sums over
        masked tokens. Parts: `contrastive`, `diversity`, `perplexity` (codes in use, of all
        codebooks). A row of a single token has no negatives: it counts to the diversity alone."""
        truth = ctx.encode(f"{self.input}.targets")
        generators = [ctx.generator] * len(batch)
        masked = self.masks(truth, generators)
        features = self._encode(ctx, masked.to(truth.mask.device))
        predictions, quantized, *codebooks = features.hidden_states
        places, others = draw_negatives(masked, self.negatives, generators)
        logits = contrast(predictions.tokens, quantized.tokens, places, others, self.temperature)
        contrastive = -logits.log_softmax(-1)[:, 0].sum()
        perplexity, codes = self._perplexity(codebooks, places)
        diversity = (codes - perplexity) / codes * len(places)
        parts = {
            "contrastive": contrastive.detach(),
            "diversity": diversity.detach(),
            "perplexity": perplexity.detach() * len(places),
        }
        total = contrastive + self.diversity_weight * diversity
        return Loss(total, len(places), parts)

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return `loss` and `accuracy`, means over masked tokens, and their number, `masked`, a
        row; masks and negatives follow from the rows' keys."""
        seeds = [zlib.crc32(key.encode()) for key in batch.keys]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        truth = ctx.encode(f"{self.input}.targets")
        masked = self.masks(truth, generators)
        features = self._encode(ctx, masked.to(truth.mask.device))
        predictions, quantized = features.hidden_states[:2]
        places, others = draw_negatives(masked, self.negatives, generators)
        logits = contrast(predictions.tokens, quantized.tokens, places, others, self.temperature)
        losses = -logits.detach().log_softmax(-1)[:, 0]
        nearest = logits[:, 1:].amax(-1)  # -inf if all codes are one
        right = ((logits[:, 0] > nearest) & nearest.isfinite()).float()
        counts = masked.sum(1).tolist()
        return [
            {"loss": float(loss.mean()), "accuracy": float(hits.mean()), "masked": count}
            for loss, hits, count in zip(losses.split(counts), right.split(counts), counts,
                                         strict=True)
        ]  # fmt: skip

    def _encode(self, ctx: Context, masked: Tensor) -> Features:
        first, last = self.gumbel_temperature
        temperature = max(first * self.gumbel_decay**ctx.step, last)
        return ctx.encode(
            f"{self.input}.encoder", token_mask=masked, gumbel_temperature=temperature
        )

    def _perplexity(self, codebooks: Sequence[Features], places: Tensor) -> tuple[Tensor, int]:
        """Return the perplexity of the codes of the masked tokens, summed over codebooks, and the
        number of codes. In training of the probabilities, or else of the codes taken."""
        total, count = torch.zeros((), device=codebooks[0].tokens.device), 0
        for book in codebooks:
            logits = book.tokens.flatten(0, 1)[places.to(book.tokens.device)].float()
            hard = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
            marginal = (logits.softmax(-1) if self.training else hard).mean(0)
            total = total + (-torch.xlogy(marginal, marginal).sum()).exp()
            count += logits.shape[-1]
        return total, count

    def masks(self, truth: Features, generators: Sequence[torch.Generator]) -> Tensor:
        """Return which tokens are masked, `[B, T]` on the CPU: two or more of each row that has so
        many."""
        rows = torch.zeros(truth.mask.shape, dtype=torch.bool, device="cpu")
        if truth.mask.is_meta:
            return ~rows
        for row, length, generator in zip(rows, truth.lengths.tolist(), generators, strict=True):
            draw_mask(row[:length], self.mask_prob, self.mask_length, generator)
        return rows

    def metrics(self) -> ContrastMetrics:
        return ContrastMetrics()

    def example_rows(self) -> list[dict[str, Any]]:
        return [{}, {}]


def draw_mask(row: Tensor, probability: float, span: int, generator: torch.Generator) -> None:
    """Mask spans of a row of tokens `[T]`, in place; their number is rounded at random."""
    length = len(row)
    span = max(1, min(span, length))
    starts = length - span + 1
    count = int(probability * length / span + float(torch.rand((), generator=generator)))
    for start in torch.randperm(starts, generator=generator)[: max(1, count)].tolist():
        row[start : start + span] = True
    if row.sum() < 2:
        row[: 1 + int(row[:1].any())] = True


def draw_negatives(
    masked: Tensor, count: int, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """masked `[B, T]` -> places `[M]` of the masked tokens in `B * T`, and for each `count` others
    of its row, as indices into them `[M, count]`."""
    others, first = [], 0
    for row, generator in zip(masked, generators, strict=True):
        if number := int(row.sum()):  # alone, a token is its own negative, which `contrast` drops
            drawn = torch.randint(
                max(1, number - 1), (number, count), generator=generator, device="cpu"
            )
            drawn += drawn >= torch.arange(number, device=masked.device)[:, None]
            others.append(drawn.clamp(max=number - 1) + first)
            first += number
    places = masked.flatten().nonzero()[:, 0]
    return places, torch.cat(others) if others else places.new_zeros(0, count)


def contrast(
    predictions: Tensor, quantized: Tensor, places: Tensor, others: Tensor, temperature: float
) -> Tensor:
    """Return logits `[M, 1 + K]`: cosines of the predictions `[B, T, P]` at `places` with the
    quantized vector there, the first, and with those of `others`; -inf for equal vectors."""
    places, others = places.to(predictions.device), others.to(predictions.device)
    predicted = F.normalize(predictions.flatten(0, 1)[places].float(), dim=-1)
    vectors = quantized.flatten(0, 1)[places].float()
    cosines = predicted @ F.normalize(vectors, dim=-1).T / temperature
    positive = cosines.diagonal()[:, None]
    negative = cosines.gather(1, others)
    if not vectors.is_meta:
        kinds = vectors.detach().unique(dim=0, return_inverse=True)[1]
        negative = negative.masked_fill(kinds[others] == kinds[:, None], float("-inf"))
    return torch.cat([positive, negative], 1)


class ContrastMetrics:
    """loss, accuracy: means over all masked tokens."""

    def __init__(self) -> None:
        self.sums, self.count = {"loss": 0.0, "accuracy": 0.0}, 0

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        for row in predictions:
            for name in self.sums:
                self.sums[name] += row[name] * row["masked"]
            self.count += row["masked"]

    def compute(self) -> dict[str, float]:
        if not self.count:
            raise ValueError("masked contrast: no row was accumulated; is the split empty?")
        return {name: total / self.count for name, total in self.sums.items()}
