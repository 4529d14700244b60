"""Captioning: text conditioned on a prompt with streams; captions, reports, answers to questions.

The prompt's streams and texts are the context, and the target follows: `-sum_i log p(y_i | context,
y_<i)`, with the end of the text, without the prompt.

With a `reference`, tokens that a language model expects without the streams count less: PRIOR,
"Prioritizing Image-Related Tokens Enhances Vision-Language Pre-Training", 2025.

Legend: `B` rows, `L` tokens of the longest target, `N` tokens of all targets, `D` width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...backbones.base import GenerationOptions, check_generation_options
from ...modalities.base import Loss, NonNegativeFloat, PositiveInt
from ..base import Context, Metrics, Row, Task, Unit
from ..batch import Batch, Example, Tools
from ..common import (
    assemble,
    example_row,
    parse_prompt,
    parse_target,
    text_unit_scores,
    text_units,
)
from ..uses import BACKBONE, DecoderUse, StreamUse
from .fact_metrics import Facts
from .metrics import TextMetrics


class Captioning(Task):
    """prompt: text, streams and columns, `"<image> {question} Answer:"`; may have no stream, and
    may be a chat (see `parse_prompt`). target: the text that follows, a template of columns; one of
    them may hold a list (several captions of a picture).

    Training draws one reference of a row, again in each epoch; the metrics use all. attention: over
    the context. facts: regular expressions with a group, by name, whose matches in caption and
    reference are compared. fact_tolerance: relative error up to which a numeric fact is right.
    decoder: which of the recipe's `decoders` writes; several may write about one stream. metrics:
    further measures, of `chrf`, `rhyme`, `sari`, `token_f1`; source: the text that `sari` compares
    with, a template of columns.

    A control prefix of the target is text of its template: `"<{rhyme}> {line}"`.

    reference: a frozen one of the `decoders`, with the same tokenizer, that reads the texts of the
    prompt alone; the loss of a token is weighted by `(1 - p) ** reference_power`, p its probability
    there, at a mean of 1 over a batch. A power of 0 is the loss without weights.
    """

    ability: ClassVar[str] = "caption"

    def __init__(
        self,
        *,
        prompt: str | dict[str, Any],
        target: str = "{caption}",
        attention: Literal["causal", "prefix"] = "causal",
        max_new_tokens: PositiveInt = 64,
        facts: dict[str, str] | None = None,
        fact_tolerance: dict[str, float] | None = None,
        decoder: str = BACKBONE,
        metrics: list[Literal["chrf", "rhyme", "sari", "token_f1"]] | None = None,
        source: str | None = None,
        reference: str | None = None,
        reference_power: NonNegativeFloat = 1.0,
    ) -> None:
        super().__init__()
        self.measures = tuple(metrics or ())
        self.source = None if source is None else parse_target("source", source)
        if ("sari" in self.measures) != (self.source is not None):
            raise ValueError("source: is what sari compares with; give both, or neither")
        self.prompt, self.target = parse_prompt(prompt), parse_target("target", target)
        self.streams = {name: StreamUse(width=decoder) for name in self.prompt.streams}
        self.decoder = decoder
        self.decoders = {decoder: DecoderUse(attention=frozenset({attention}))}
        self.reference, self.reference_power = reference, reference_power
        if reference is not None:
            if reference == decoder:
                raise ValueError(
                    f"reference: found {reference}, which writes; name another decoder"
                )
            self.decoders[reference] = DecoderUse(role="teacher")
        self.attention, self.max_new_tokens = attention, max_new_tokens
        self.facts = Facts(facts or {}, fact_tolerance)
        self.main_metric = "fact_f1" if self.facts.patterns else None

    def prompt_columns(self) -> tuple[str, ...]:
        return self.prompt.columns

    def columns(self) -> tuple[str, ...]:
        source = () if self.source is None else self.source.columns
        return tuple(dict.fromkeys((*self.prompt.columns, *self.target.columns, *source)))

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Labels: the prompt's texts, and `target`, the ids `[L]` of one reference with `eos`.
        Reference: `references`, all of them; none if the row lacks the columns, as when a picture
        without a caption is described."""
        tokenizer = tools.tokenizer(self.decoder)
        labels = self.prompt.encode(row, tokenizer)
        references = self._references(row)
        if references:
            draw = rng is not None and len(references) > 1
            chosen = references[int(rng.integers(len(references))) if draw and rng else 0]
            labels["target"] = torch.tensor([*tokenizer.encode(chosen), tokenizer.eos_id])
        reference: dict[str, Any] = {"references": references}
        if self.source is not None and all(column in row for column in self.source.columns):
            reference["source"] = self.source.render(row)[0]
        return Example(labels, reference)

    def _references(self, row: Row) -> list[str]:
        if any(column not in row for column in self.target.columns):
            return []
        lists = [c for c in self.target.columns if isinstance(row[c], (list, tuple))]
        if not lists:
            return [self.target.render(row)[0]]
        column, *more = lists
        if more or not row[column]:
            problem = f"{column!r} and {more[0]!r} hold lists" if more else f"{column!r} is empty"
            raise ValueError(
                f"target: {problem}; expected one column of {self.target.template!r} with one "
                "text or more, and single values in the others"
            )
        return [self.target.render({**row, column: value})[0] for value in row[column]]

    def fit_examples(self, part: str, row: Row) -> Iterable[Any]:
        """Tokenizers of decoders are fitted on the prompts and every reference."""
        if not part.endswith(".tokenizer"):
            return super().fit_examples(part, row)
        return [text for text in (*self.prompt.render(row), *self._references(row)) if text]

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the cross-entropy in float32, summed over target tokens. Parts: `correct`, tokens
        whose logit is the largest."""
        decoder = ctx.decoder(self.decoder)
        ids = batch.label(
            "target",
            f"has no text to learn; its data must have the columns of {self.target.template!r}",
        )
        mask = batch.label_masks["target"]
        context = assemble(self.prompt.streams, batch, ctx, decoder=self.decoder)
        # Positions of real tokens are computed on the CPU, without synchronizing with the device.
        positions = mask.flatten().nonzero().squeeze(1).to(ids.device)  # [N]
        hidden = decoder.teacher_force(context, ids, mask.to(ids.device), self.attention)
        labels = ids.flatten()[positions]  # [N]
        logits = decoder.logits(hidden.flatten(0, 1)[positions]).float()  # [N, V]
        losses = F.cross_entropy(logits, labels, reduction="none")  # [N]
        if self.reference is not None:
            losses = losses * self._weights(batch, ctx, positions)
        total = losses.sum()
        right = {"correct": (logits.detach().argmax(-1) == labels).sum()} if ctx.logs else {}
        return Loss(total, int(mask.sum()), right)

    @torch.no_grad()
    def _weights(self, batch: Batch, ctx: Context, positions: Tensor) -> Tensor:
        """Return the weights `[N]` of the target tokens at some positions, 1 on average."""
        assert self.reference is not None
        reference, ids = ctx.decoder(self.reference), batch.labels["target"]
        if reference.tokenizer.size != ctx.decoder(self.decoder).tokenizer.size:
            raise ValueError(
                f"reference: {self.reference} has a tokenizer of {reference.tokenizer.size} ids, "
                f"{self.decoder} one of {ctx.decoder(self.decoder).tokenizer.size}; give both one"
            )
        context = assemble(self.prompt.streams, batch, ctx, self.reference, texts_only=True)
        mask = batch.label_masks["target"].to(ids.device)
        hidden = reference.teacher_force(context, ids, mask, "causal")
        logits = reference.logits(hidden.flatten(0, 1)[positions]).float()  # [N, V]
        likely = logits.softmax(-1).gather(1, ids.flatten()[positions, None]).squeeze(1)
        weights = (1 - likely) ** self.reference_power
        return weights / weights.mean().clamp(min=torch.finfo(torch.float32).tiny)

    def predict(  # type: ignore[override]  # no other option
        self, batch: Batch, ctx: Context, **options: Unpack[GenerationOptions]
    ) -> list[Any]:
        """Return `{"text": ...}` a row; options are those of the decoder's `generate`."""
        check_generation_options(options)
        texts = self._generate(batch, ctx, options)
        if len(texts) != len(batch):
            count = len(batch)
            raise ValueError(f"generate: found {len(texts)} texts, expected one of {count} rows")
        return [{"text": ctx.decoder(self.decoder).tokenizer.decode(row).strip()} for row in texts]

    def _generate(self, batch: Batch, ctx: Context, options: Mapping[str, Any]) -> list[list[int]]:
        """Return the ids that are written, without `eos`."""
        decoder = ctx.decoder(self.decoder)
        context = assemble(self.prompt.streams, batch, ctx, decoder=self.decoder)
        options = {"max_new_tokens": self.max_new_tokens, **options}
        ids = decoder.generate(context, self.attention, **options).tolist()
        eos = decoder.tokenizer.eos_id
        return [row[: row.index(eos)] if eos in row else row for row in ids]

    def units(self, batch: Batch, ctx: Context) -> list[Unit]:
        """Return the words of the text that is written for the first row."""
        return text_units(ctx.decoder(self.decoder).tokenizer, self._generate(batch, ctx, {})[0])

    def unit_scores(self, batch: Batch, ctx: Context, units: Sequence[Unit]) -> Tensor:
        """Return `[B, U]`, the log-probability of each word."""
        context = assemble(self.prompt.streams, batch, ctx, decoder=self.decoder)
        return text_unit_scores(ctx.decoder(self.decoder), context, units, self.attention)

    def metrics(self) -> Metrics:
        return CaptionMetrics(self.facts, self.measures)

    def example_rows(self) -> list[dict[str, Any]]:
        prompts = tuple(p for p in (self.prompt, self.target, self.source) if p is not None)
        return [example_row(prompts, text) for text in ("a red circle", "two small blue squares")]


class CaptionMetrics(TextMetrics):
    """`TextMetrics` of captioning's predictions and references."""

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        texts = [prediction["text"] for prediction in predictions]
        self.add(texts, [reference["references"] for reference in references])
        self.sources += [reference.get("source", "") for reference in references]
