"""Generation of signal tokens: a text, streams, or nothing before; pictures, units, boxes after.

The target is a template of streams of signal tokens and of texts. Each tokenizer's ids are rows
added to the decoder's vocabulary, so that a signal is learned and written as a text is: a language
model of units (GSLM, arXiv 2102.01192), pictures as codes (Lumina-mGPT, arXiv 2408.02657).

Legend: `B` rows, `S` streams of the target, `L` tokens of the longest target, `N` of all targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ....backbones.base import Backbone, GenerationOptions, check_generation_options
from ....modalities.base import (
    Features,
    Fraction,
    Loss,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
)
from ...base import Context, Row, Task
from ...batch import Batch, Example, Tools
from ...common import Prompt, assemble, example_row, parse_prompt
from ...uses import BACKBONE, DecoderUse, StreamUse
from .grammar import SignalSampler, SignalSpan
from .metrics import SignalMetrics


class SignalGeneration(Task):
    """prompt: text, streams and columns before the target; may be empty. target: streams whose
    encoder is `tokens`, and text, `"<image>"` or `"{caption} <image>"`.

    attention: over the prompt. z_loss: weight of the squared log of the softmax's denominator,
    which keeps logits from drifting (Lumina-mGPT: 1e-5). condition_dropout: fraction of training
    rows that see an empty prompt. guidance: weight of the prompt in generation,
    `u + guidance (c - u)` of the log-probabilities with (`c`) and without it (`u`); 1: none.
    decoder: which of the recipe's `decoders` writes.
    """

    metric_names = {
        "valid": "fraction of the written signals that can be decoded",
        "token_accuracy": "fraction of target tokens that are the most probable ones",
    }

    def __init__(
        self,
        *,
        prompt: str | dict[str, Any] = "",
        target: str,
        attention: Literal["causal", "prefix"] = "causal",
        z_loss: NonNegativeFloat = 0.0,
        condition_dropout: Fraction = 0.0,
        guidance: PositiveFloat = 1.0,
        max_new_tokens: PositiveInt = 256,
        decoder: str = BACKBONE,
    ) -> None:
        super().__init__()
        self.prompt, self.target = parse_prompt(prompt), _parse_target(target)
        both = set(self.prompt.streams) & set(self.target.streams)
        if both:
            raise ValueError(
                f"target: <{min(both)}> is in the prompt too; nothing is left to learn"
            )
        self.streams = {name: StreamUse(width=decoder) for name in self.prompt.streams} | {
            name: StreamUse(role="label", supports=frozenset({"codes"}))
            for name in self.target.streams
        }
        self.decoder, self.attention = decoder, attention
        self.decoders = {decoder: DecoderUse(attention=frozenset({attention}))}
        self.z_loss, self.condition_dropout = z_loss, condition_dropout
        self.guidance, self.max_new_tokens = guidance, max_new_tokens
        self.spans: list[SignalSpan] = []  # set by `build`

    def prompt_columns(self) -> tuple[str, ...]:
        return self.prompt.columns

    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.prompt.columns + self.target.columns))

    def inputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.prompt.streams))

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Backbone]) -> None:
        """Add the ids of each tokenizer to the decoder's vocabulary; streams of one tokenizer
        have ids of their own."""
        self.spans = []
        for stream in self.target.streams:
            tokenizer = self.signal_tokenizers[stream]
            first = decoders[self.decoder].add_tokens(tokenizer.size, spread=1.0)
            self.spans.append(SignalSpan(stream, first, tokenizer))

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Labels: the prompt's texts, and `target.0` to `target.S`, the texts around the target's
        streams, the last one with `eos`; none of these if the row lacks a column."""
        tokenizer = tools.tokenizer(self.decoder)
        labels = self.prompt.encode(row, tokenizer)
        if not self.prompt.streams and not len(labels["prompt.0"]):
            labels["prompt.0"] = torch.tensor([_start(tokenizer)])
        if all(column in row for column in self.target.columns):
            ids = [tokenizer.encode(text) for text in self.target.render(row)]
            ids[-1] = [*ids[-1], tokenizer.eos_id]
            labels |= {
                f"target.{i}": torch.tensor(text, dtype=torch.long) for i, text in enumerate(ids)
            }
        return Example(labels)

    def fit_examples(self, part: str, row: Row) -> Iterable[Any]:
        """Tokenizers of decoders are fitted on the texts of prompt and target."""
        if not part.endswith(".tokenizer"):
            return super().fit_examples(part, row)
        return [text for text in (*self.prompt.render(row), *self.target.render(row)) if text]

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the cross-entropy in float32, summed over target tokens, and `z_loss`. Parts:
        `correct`, tokens whose logit is the largest."""
        context = self._context(batch, ctx)
        if self.condition_dropout:
            drawn = torch.rand(len(batch), generator=ctx.generator) < self.condition_dropout
            context = _without(context, drawn, self._unconditional(ctx))
        losses, correct, mask, z = self._scores(batch, ctx, context)
        total = losses.sum() + self.z_loss * (z.square() * mask).sum()
        return Loss(total, mask.sum(), {"correct": correct.sum()})

    def _context(self, batch: Batch, ctx: Context) -> Features:
        return assemble(self.prompt.streams, batch, ctx, decoder=self.decoder)

    def _unconditional(self, ctx: Context) -> Tensor:
        """Return the embedding `[D]` of the empty prompt."""
        decoder = ctx.decoder(self.decoder)
        device = next(decoder.parameters()).device
        return decoder.embed(torch.tensor([_start(decoder.tokenizer)], device=device))[0]

    def _target_ids(self, batch: Batch, ctx: Context) -> tuple[Tensor, Tensor]:
        """Return the ids `[B, L]` of texts and signals in the order of the template, and their
        mask."""
        segments = []
        for index in range(len(self.spans) + 1):
            cure = f"has no text to learn; its data must have the columns of {self.target.template}"
            ids = batch.label(f"target.{index}", cure)
            segments.append((ids, batch.label_masks[f"target.{index}"].to(ids.device)))
            if index < len(self.spans):
                span = self.spans[index]
                features = ctx.encode(f"{span.stream}.encoder")
                if features.codes is None:
                    raise ValueError(f"inputs.{span.stream}.encoder: returned no codes")
                segments.append((features.codes.to(ids.device) + span.first, features.mask))
        ids = torch.cat([ids for ids, _ in segments], 1)
        mask = torch.cat([mask.to(ids.device) for _, mask in segments], 1)
        order = mask.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
        return ids.gather(1, order), mask.gather(1, order)

    def _scores(
        self, batch: Batch, ctx: Context, context: Features
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return of each target token `[B, L]`: its loss and whether its logit is the largest, 0 in
        the padding; the mask; and the log of the softmax's denominator."""
        decoder = ctx.decoder(self.decoder)
        ids, mask = self._target_ids(batch, ctx)
        hidden = decoder.teacher_force(context, ids, mask, self.attention)
        logits = decoder.logits(hidden).float()  # [B, L, V]
        labels = ids.masked_fill(~mask, -100)
        losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        correct = logits.detach().argmax(-1) == labels
        return losses, correct, mask, logits.logsumexp(-1)

    def predict(  # type: ignore[override]  # no other option
        self,
        batch: Batch,
        ctx: Context,
        *,
        guidance: PositiveFloat | None = None,
        **options: Unpack[GenerationOptions],
    ) -> list[Any]:
        """Return a row: `text`; `signals`, by stream the `tokens`, and their `value` if it is JSON
        or the `problem` why they are no signal; `scores` of the target if the batch has it.
        guidance: in place of the task's; it samples with `temperature` and `top_k` alone. The other
        options are those of the decoder's `generate`."""
        check_generation_options(options)
        context, decoder = self._context(batch, ctx), ctx.decoder(self.decoder)
        sampler = SignalSampler(self.spans, self.target.has_text, decoder)
        scale = self.guidance if guidance is None else guidance
        options = {"max_new_tokens": self.max_new_tokens, **options}
        empty = _without(
            context, torch.ones(len(batch), dtype=torch.bool), self._unconditional(ctx)
        )
        ids = sampler.generate(context, empty, self.attention, scale, dict(options))
        rows = [sampler.split(row) for row in ids]
        if all(batch.has(stream) for stream in self.target.streams) and "target.0" in batch.labels:
            for row, scores in zip(rows, self._row_scores(batch, ctx, context), strict=True):
                row["scores"] = scores
        return rows

    def _row_scores(
        self, batch: Batch, ctx: Context, context: Features
    ) -> list[dict[str, float | int]]:
        losses, correct, mask, _ = (t.detach() for t in self._scores(batch, ctx, context))
        sums = (value.sum(1).tolist() for value in (losses, mask, correct))
        return [
            {"nll": nll, "tokens": count, "correct": right}
            for nll, count, right in zip(*sums, strict=True)
        ]

    def metrics(self) -> SignalMetrics:
        return SignalMetrics()

    def example_rows(self) -> list[dict[str, Any]]:
        prompts = (self.prompt, self.target)
        return [example_row(prompts, text) for text in ("a red circle", "two small blue squares")]


def _parse_target(template: str) -> Prompt:
    """Return the template of a target. Raise ValueError if it names no stream, or one twice."""
    try:
        target = Prompt(template)
    except ValueError as error:
        raise ValueError(f"target: {error}") from None
    if not target.streams or len(set(target.streams)) < len(target.streams):
        problem = "names no stream" if not target.streams else "names a stream twice"
        raise ValueError(
            f"target: {template!r} {problem}; write <image> where the tokens of the input called "
            "image are to stand, or use type: captioning for a text alone"
        )
    return target


def _start(tokenizer: Any) -> int:
    return int(tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id)


def _without(context: Features, rows: Tensor, empty: Tensor) -> Features:
    """Return a context in which some rows `[B]` bool hold the embedding of the empty prompt."""
    chosen = rows.to(context.tokens.device)[:, None]
    first = torch.arange(context.tokens.shape[1], device=chosen.device) == 0
    tokens = torch.where(
        (chosen & first)[..., None], empty.to(context.tokens.dtype), context.tokens
    )
    return Features(tokens, torch.where(chosen, first, context.mask))
