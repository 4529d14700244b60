"""Replaced-token detection: an encoder learns which tokens a small generator put in.

Clark et al. 2020 (ELECTRA), section 2: the loss is the generator's masked-LM loss plus `weight`
times the binary cross-entropy of the encoder over all real tokens. Sampling has no gradient, and a
token that the generator restores is an original.

Legend: `B` rows, `L` tokens of the longest text, `N` chosen tokens, `V` vocabulary, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....modalities.base import Loss, NonNegativeFloat, PositiveFloat, Probability
from ...base import Context, Task
from ...batch import Batch
from ...uses import StreamUse
from .masked_lm import mask_id
from .metrics import MASKED, MaskedMetrics
from .pretext import Losses, token_losses
from .text import MaskRule, TextIds, encode_text, positions_of

DETECTION = "detection"


class ReplacedToken(Task):
    """stream: the text, whose encoder is kept. generator: a stream of the same text with a smaller
    encoder (`data: {train: {columns: {generator: text}}}`); it reads the embeddings and writes by
    the vocabulary of the first (`lm_head: true`), through maps of this task where their widths
    differ, so that the tables of both are one.

    mask_prob: of a token to be chosen. weight: of the detection. temperature: of the sampling.
    """

    untrained_metrics: ClassVar[tuple[str, ...]] = ()
    metric_names: Mapping[str, str] = {
        "loss": "mean over masked tokens of the generator, in nats",
        "accuracy": "fraction of masked tokens whose logit is the generator's largest",
        "detection_loss": "binary cross-entropy of the detection over all tokens",
        "detection_accuracy": "fraction of tokens rightly told to be original or replaced",
    }

    def __init__(
        self,
        *,
        stream: str = "text",
        generator: str = "generator",
        mask_prob: Probability = 0.15,
        weight: NonNegativeFloat = 50.0,
        temperature: PositiveFloat = 1.0,
    ) -> None:
        super().__init__()
        if stream == generator:
            raise ValueError(
                f"generator: names {stream!r}, the text itself; give it its own stream"
            )
        self.stream, self.generator_stream = stream, generator
        self.rule = MaskRule(mask_prob, 0.0, 0.0)
        self.weight, self.temperature = weight, temperature
        self.streams = {
            stream: StreamUse(supports=frozenset({"vocabulary"})),
            generator: StreamUse(supports=frozenset({"inputs_embeds"})),
        }
        self.self_supervised = frozenset({stream, generator})

    def inputs(self) -> tuple[str, ...]:
        return (self.stream, self.generator_stream)

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Any]) -> None:
        """Create the detector and the maps between the two widths."""
        width, small = (widths[f"{s}.encoder"] for s in (self.stream, self.generator_stream))
        same = width == small
        self.down: nn.Module = nn.Identity() if same else nn.Linear(width, small)
        self.up: nn.Module = nn.Identity() if same else nn.Linear(small, width)
        self.detector = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the generator's loss summed over chosen tokens; the mean of the detection counts
        as often. Parts: `correct`, `detection_loss`, `replaced` tokens."""
        losses, correct, text, sampled = self._generated(batch, ctx, ctx.generator)
        detection, _ = self.detect(ctx, text, sampled)
        count = len(losses.values)
        total = losses.values.sum() + self.weight * detection.mean() * count
        parts = {
            "correct": correct.sum(),
            "detection_loss": detection.mean().detach() * count,
            "replaced": (sampled != text.ids).sum(),
        }
        return Loss(total, count, parts)

    def _generated(
        self, batch: Batch, ctx: Context, generator: torch.Generator | None
    ) -> tuple[Losses, Tensor, TextIds, Tensor]:
        """Return the losses `[N]` of the generator, whether each is right, the text, and its ids
        with the sampled ones `[B, L]`."""
        encoder, small = ctx.encoder(self.stream), ctx.encoder(self.generator_stream)
        text = TextIds.of(ctx.sample(self.stream), encoder)
        chosen = text.choose(self.rule.prob, generator)
        draws = generator or torch.Generator().manual_seed(0)
        size = encoder.processor.tokenizer.size
        corrupted = text.corrupt(chosen, self.rule, mask_id(encoder, self.rule), size, draws)
        embeds = self.down(encoder.embed(corrupted))
        states = self.up(encode_text(small, text.with_ids(corrupted), embeds=embeds).tokens)
        positions = positions_of(chosen)
        losses, logits = token_losses(encoder, states, text.ids, positions)
        correct = logits.argmax(-1) == text.ids.flatten()[positions]
        with torch.no_grad():
            logits = logits[..., :size]
            sampled = sample(logits / self.temperature, self._draws(text, positions, generator))
        ids = text.ids.flatten().scatter(0, positions, sampled).view_as(text.ids)
        return losses, correct, text, ids

    def _draws(self, text: TextIds, positions: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return a number `[N]` of 0 to 1 for each chosen token; without a generator it depends on
        the row's ids alone, so that a score does not depend on the batch."""
        if generator is not None or positions.is_meta:
            return torch.rand(len(positions), generator=generator)
        return text.draws(None).flatten()[positions.cpu()] / self.rule.prob % 1

    def detect(self, ctx: Context, text: TextIds, ids: Tensor) -> tuple[Losses, Tensor]:
        """Return the losses of the detection over real tokens `[M]` of a text whose ids were
        replaced by `ids [B, L]`, and whether each is right."""
        features = encode_text(ctx.encoder(self.stream), text.with_ids(ids))
        positions = positions_of(text.mask)
        scores = self.detector(features.tokens).flatten()[positions].float()
        labels = (ids != text.ids).flatten()[positions]
        values = F.binary_cross_entropy_with_logits(scores, labels.float(), reduction="none")
        rows = positions // max(1, ids.shape[1])
        return Losses(values, rows), (scores.detach() > 0) == labels

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return `scores` a row of the generator (`masked`) and the `detection`."""
        losses, correct, text, sampled = self._generated(batch, ctx, None)
        detection, right = self.detect(ctx, text, sampled)
        count = len(batch)
        hits = [replace(x, values=r.float()) for x, r in ((losses, correct), (detection, right))]
        pairs = (x.sums(count) for x in (losses, detection, *hits))
        return [
            {
                "scores": {
                    MASKED: {"nll": m[0], "tokens": m[1], "correct": c[0]},
                    DETECTION: {"nll": d[0], "tokens": d[1]},
                },
                "measures": {"detection_accuracy": r[0] / max(1, r[1])},
            }
            for m, d, c, r in zip(*pairs, strict=True)
        ]

    def metrics(self) -> MaskedMetrics:
        return MaskedMetrics()

    def example_rows(self) -> list[dict[str, Any]]:
        return [{}, {}]


def sample(logits: Tensor, draws: Tensor) -> Tensor:
    """Return ids `[N]` of logits `[N, V]` by uniform draws `[N]`, without a graph."""
    shares = logits.detach().float().softmax(-1).cumsum(-1)
    draws = draws[:, None].to(logits.device)
    return (shares < draws * shares[:, -1:]).sum(-1).clamp(max=logits.shape[-1] - 1)
