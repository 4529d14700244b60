"""A masked-LM head as a classifier: the answer is the token at a mask, out of those allowed.

"It's All in The [MASK]" (2025): training is the masked-LM loss of the answer's token, with a share
of rows that are plain masked text; there is no new parameter, so that it also answers untrained.

Legend: `B` rows, `L` tokens of the longest text, `C` allowed answers, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ....modalities.base import Loss, Probability
from ...base import Context, Row, Task, VocabularyEncoder
from ...batch import Batch, Example, Tools
from ...uses import StreamUse
from .masked_lm import mask_id
from .pretext import token_losses
from .text import MaskRule, TextIds, encode_text, positions_of

MASK = "<mask>"


class MaskedAnswer(Task):
    """stream: the text, whose encoder has a vocabulary. cloze: what follows it, with one `<mask>`:
    `" It was <mask>."`. choices: the allowed answers, a token each. target: the column with the
    right one. plain_share: of the training rows, those that are masked text instead.
    """

    ability: ClassVar[str] = "classify"
    main_metric = "accuracy"
    metric_names: Mapping[str, str] = {"chance": "accuracy of a random answer"}

    def __init__(
        self,
        *,
        choices: list[str],
        cloze: str = " <mask>",
        stream: str = "text",
        target: str = "label",
        plain_share: Probability = 0.0,
    ) -> None:
        super().__init__()
        if len(choices) < 2 or len(set(choices)) < len(choices):
            raise ValueError(f"choices: found {', '.join(choices)}, expected two different or more")
        if cloze.count(MASK) != 1:
            raise ValueError(f"cloze: found {cloze!r}, expected a text with {MASK} once")
        if not 0 <= plain_share < 1:
            raise ValueError(f"plain_share: found {plain_share}, expected 0 or more and below 1")
        self.choices, self.cloze, self.stream = list(choices), cloze, stream
        self.target, self.plain_share = target, plain_share
        self.streams = {stream: StreamUse(supports=frozenset({"vocabulary"}))}

    def columns(self) -> tuple[str, ...]:
        return (self.target,)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Labels: `answer`, the number of the right choice, and `plain`, whether the row is masked
        text. Reference: `label`."""
        if self.target not in row:
            return Example()
        label = row[self.target]
        if label not in self.choices:
            raise ValueError(f"{self.target}: found {label!r}, expected {', '.join(self.choices)}")
        plain = rng is not None and rng.random() < self.plain_share
        labels = {"answer": torch.tensor(self.choices.index(label)), "plain": torch.tensor(plain)}
        return Example(labels, {"label": label})

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the cross-entropy of the answers' tokens over the vocabulary, and of the chosen
        tokens of plain rows, summed. Parts: `correct` answers among those allowed."""
        encoder = ctx.encoder(self.stream)
        answers = batch.label("answer", f"has no {self.target}")
        text, place = self._asked(ctx, encoder)
        plain = batch.labels["plain"].to(place.device)
        logits = self._logits(encoder, text, place)
        ids = self._answer_ids(encoder).to(place.device)
        labels = ids[answers.to(place.device)]
        values = F.cross_entropy(logits, labels, reduction="none").masked_fill(plain, 0)
        right = logits[:, ids].argmax(-1) == answers.to(place.device)
        total, count = values.sum(), (~plain).sum()
        if self.plain_share:
            losses = self._plain(ctx, encoder, plain)
            total, count = total + losses.sum(), count + len(losses)
        return Loss(total, count, {"correct": (right & ~plain).sum()})

    def _plain(self, ctx: Context, encoder: VocabularyEncoder, plain: Tensor) -> Tensor:
        """Return the masked-LM losses of the plain rows."""
        text, rule = TextIds.of(ctx.sample(self.stream), encoder), MaskRule()
        chosen = text.choose(rule.prob, ctx.generator) & plain[:, None]
        size = encoder.processor.tokenizer.size
        ids = text.corrupt(chosen, rule, mask_id(encoder, rule), size, ctx.generator)
        states = encode_text(encoder, text.with_ids(ids)).tokens
        return token_losses(encoder, states, text.ids, positions_of(chosen))[0].values

    def _asked(self, ctx: Context, encoder: VocabularyEncoder) -> tuple[TextIds, Tensor]:
        """Return the texts with the cloze before their last special token, and the place `[B]` of
        the mask in each."""
        tokenizer = encoder.processor.tokenizer
        before, after = (tokenizer.encode(part) for part in self.cloze.split(MASK))
        cloze = [*before, mask_id(encoder, MaskRule()), *after]
        text = TextIds.of(ctx.sample(self.stream), encoder)
        lengths, count = text.mask.sum(1), len(cloze)
        rows = torch.arange(len(lengths), device=lengths.device)
        ends = text.ids[rows, (lengths - 1).clamp(min=0)] == tokenizer.eos_id
        start = (lengths - ends.long())[:, None]  # [B, 1]
        places = torch.arange(text.ids.shape[1] + count, device=lengths.device)[None]
        source = torch.where(places < start, places, (places - count).clamp(min=0))
        ids = text.ids.gather(1, source.clamp(max=text.ids.shape[1] - 1).expand(len(rows), -1))
        inside = (places >= start) & (places < start + count)
        added = torch.tensor(cloze, device=lengths.device)[(places - start).clamp(0, count - 1)]
        ids = torch.where(inside, added, ids)
        mask = places < lengths[:, None] + count
        asked = text.of_rows(rows, ids.masked_fill(~mask, tokenizer.pad_id), mask, ~mask)
        return asked, start[:, 0] + len(before)

    def _logits(self, encoder: VocabularyEncoder, text: TextIds, place: Tensor) -> Tensor:
        """Return `[B, V]` at the masks, float32."""
        states = encode_text(encoder, text).tokens
        rows = torch.arange(len(place), device=place.device)
        return encoder.logits(states[rows, place]).float()

    def _answer_ids(self, encoder: VocabularyEncoder) -> Tensor:
        before = self.cloze.split(MASK)[0]
        ids: list[int] = []
        for choice in self.choices:
            encoded = encoder.processor.tokenizer.encode(choice)
            if len(encoded) != 1:
                spaced = encoder.processor.tokenizer.encode(f" {choice}")
                encoded = spaced if len(spaced) == 1 and not before.endswith(" ") else encoded
            if len(encoded) != 1:
                raise ValueError(
                    f"choices: {choice!r} is {len(encoded)} tokens, expected one; take a word of "
                    "the vocabulary"
                )
            ids += encoded
        return torch.tensor(ids)

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return the `label` and the `probabilities` of the allowed answers, of sum 1."""
        encoder = ctx.encoder(self.stream)
        text, place = self._asked(ctx, encoder)
        ids = self._answer_ids(encoder).to(place.device)
        shares = self._logits(encoder, text, place)[:, ids].softmax(-1)
        return [
            {
                "label": self.choices[int(np.argmax(row))],
                "probabilities": dict(zip(self.choices, row, strict=True)),
            }
            for row in shares.tolist()
        ]

    def metrics(self) -> AnswerMetrics:
        return AnswerMetrics(len(self.choices))

    def example_rows(self) -> list[dict[str, Any]]:
        return [{self.target: choice} for choice in self.choices[:2]]


class AnswerMetrics:
    """accuracy: of the labels; chance: of a random one."""

    def __init__(self, choices: int) -> None:
        self.choices, self.right, self.count = choices, 0, 0

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        labels = [(p["label"], r["label"]) for p, r in zip(predictions, references, strict=True)]
        self.count += len(labels)
        self.right += sum(first == second for first, second in labels)

    def compute(self) -> dict[str, float]:
        if not self.count:
            raise ValueError("answer metrics: no row was accumulated; is the split empty?")
        return {"accuracy": self.right / self.count, "chance": 1 / self.choices}
