"""Masked language modelling on the encoder of a text stream: any that has a vocabulary.

The loss is `-sum_i log p(x_i | corrupted text)` over tokens drawn with `mask_prob` (Devlin et al.
2019). Disposable decoders (`pretext`) add losses by which the same encoder learns; nothing of this
task is part of the encoder, which `weights: runs/x:text` takes alone.

Legend: `B` rows, `L` tokens of the longest text, `D` width of a state, `N` chosen tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from ....modalities.base import Loss, NonNegativeFloat, Probability
from ...base import Context, Row, Task, VocabularyEncoder
from ...batch import Batch, Example, Tools
from ...uses import StreamUse
from ..sections import read_weighted
from ..spans import Phrases
from ..unigram import Unigram
from .conditions import Conditions
from .docking import Docking
from .metrics import MASKED, MaskedMetrics
from .pretext import PRETEXTS, Encoded, Losses, Pretext, token_losses
from .text import (
    MaskRule,
    TextIds,
    encode_text,
    ordinary_ids,
    positions_of,
    special_ids,
)


class MaskedLM(Task):
    """stream: the text; its encoder has a vocabulary: `lm_head: true`, or `{share: backbone}`.
    before: streams docked in front of the text, as wide as its embeddings (`connector: linear`).
    items: streams whose cells are lists, each item a vector there (sentences of a document).
    regions: `{image: boxes}`, a stream of `before` by the boxes of a column, `[x1, y1, x2, y2]` as
    fractions of the picture that the encoder sees.

    mask_prob: of a token to be predicted. random_prob, keep_prob: of the chosen ones, share that
    becomes a random token, and that stays; the others become the mask token. weight: of this loss;
    0 leaves the others alone. conditions: `{language: [de, sw]}`, columns and their values; a
    learned vector of the value is added to the states before the vocabulary, in this task alone.

    pretext: disposable decoders, each with its `weight`: `bow`, `condenser`, `ctc`, `decoder`,
    `enhanced`, `frames`, `future`, `hierarchy`, `infilling`, `matching`, `misspelt`, `objects`,
    `replaced_phrases`, `sections`, `triples`, `triplet`, `visible`, `weak`. phrases: statistics of
    the training texts, by which keyphrases are chosen where the data have none.

    An evaluation masks by the text alone, so that two models are scored on the same tokens.
    """

    untrained_metrics: ClassVar[tuple[str, ...]] = ("loss", "perplexity", "accuracy")
    metric_names: Mapping[str, str] = {
        "loss": "mean over masked tokens, in nats",
        "accuracy": "fraction of masked tokens whose logit is the largest",
        "unigram_loss": "loss of a model that knows only how often each token occurs",
        "untrained_loss": "loss of the model before its training",
        "effective_rank": "directions that hold 90 % of the energy of a text's states",
        "smoothness": "cosine of the states of neighbouring tokens",
        **{f"{name}_loss": f"loss of the decoder {name}" for name in PRETEXTS},
        **{f"{name}_accuracy": f"fraction of rows that {name} gets right" for name in PRETEXTS},
        "infilling_length_accuracy": "fraction of phrases whose number of tokens is right",
    }

    def __init__(
        self,
        *,
        stream: str = "text",
        before: list[str] | None = None,
        items: list[str] | None = None,
        regions: dict[str, str] | None = None,
        mask_prob: Probability = 0.15,
        random_prob: Probability = 0.1,
        keep_prob: Probability = 0.1,
        weight: NonNegativeFloat = 1.0,
        conditions: dict[str, list[str]] | None = None,
        pretext: list[dict[str, Any]] | None = None,
        phrases: Phrases | None = None,
    ) -> None:
        super().__init__()
        self.stream, self.weight = stream, weight
        self.docking = Docking(before or (), items or (), regions or {})
        self.rule = MaskRule(mask_prob, random_prob, keep_prob)
        parts = read_weighted("pretext", pretext or [], PRETEXTS, Pretext)
        self.weights = {name: value for name, value, _ in parts}
        self.pretext = nn.ModuleDict({name: part for name, _, part in parts})
        self.phrases = Phrases() if phrases is None else phrases
        self.phrases.enabled = any(part.needs_phrases for _, _, part in parts)
        for name, _, part in parts:
            part.name, part.phrases = name, self.phrases
            if part.needs_docked and not self.docking:
                raise ValueError(f"pretext: {name} reads what stands before the text; add before")
        self.conditions = Conditions(conditions or {})
        self.hides_masks = any(part.hides_masks for _, _, part in parts)
        if stream in self.docking.streams(stream):
            raise ValueError(f"before: names {stream!r}, the text itself")
        if self.docking and self.hides_masks:
            raise ValueError("pretext: visible reads the text alone; leave before out")
        layers = tuple(dict.fromkeys(n for _, _, p in parts for n in p.needs_layers))
        self.layers = layers
        needs = {"vocabulary"} | ({"hidden_states"} if layers else set())
        needs |= {"inputs_embeds"} if self.docking else set()
        self.streams = {stream: StreamUse(supports=frozenset(needs))}
        self.streams |= self.docking.streams(stream)
        self.self_supervised = frozenset({stream})
        if not (weight and mask_prob) and not any(self.weights.values()):
            raise ValueError("weight: is 0 and there is no pretext; nothing is learned")
        self.special: frozenset[int] = frozenset()  # of the last batch, for the unigram baseline
        self.size = 0

    @property
    def parts(self) -> dict[str, Pretext]:
        """The disposable decoders, by name."""
        return {name: cast(Pretext, part) for name, part in self.pretext.items()}

    def columns(self) -> tuple[str, ...]:
        sections = (column for part in self.parts.values() for column in part.columns())
        return tuple(dict.fromkeys((*self.conditions.columns, *self.docking.columns(), *sections)))

    def nullable(self) -> Sequence[str]:
        return [column for part in self.parts.values() for column in part.columns()]

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Any]) -> None:
        """Create the disposable decoders and the vectors of the conditions."""
        width = widths[f"{self.stream}.encoder"]
        self.conditions.build(width)
        self.docking.build(width)
        for part in self.parts.values():
            part.build(width)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Labels: of the conditions, and of the disposable decoders, `PRETEXT.NAME`."""
        labels = self.conditions.prepare(row) | self.docking.prepare(row)
        for name, part in self.parts.items():
            if all(column in row for column in part.columns()):
                made = part.prepare(row, self._own(tools), rng)
                labels |= {f"{name}.{key}": value for key, value in made.items()}
        return Example(labels)

    def fit_examples(self, part: str, row: Row) -> Iterable[Any]:
        """Phrases are fitted on the texts."""
        if part != "phrases":
            return super().fit_examples(part, row)
        return [row[self.stream]] if isinstance(row.get(self.stream), str) else []

    def _own(self, tools: Tools) -> Tools:
        own = {n: t for n, t in tools.stream_tokenizers.items() if n == self.stream}
        return Tools(tools.tokenizers, own)

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the masked-LM loss summed over chosen tokens; the mean of each further term counts
        as often. Parts: `correct` tokens, and each term."""
        encoded = self.encode(batch, ctx, ctx.generator)
        terms: dict[str, Tensor] = {}
        count: int = 0
        total = encoded.features.tokens.new_zeros((), dtype=torch.float32)
        parts: dict[str, Tensor] = {}
        if self.rule.prob and self.weight:
            losses, correct = self.masked(encoded, batch)
            count, total = len(losses.values), self.weight * losses.values.sum()
            parts = {"correct": correct.sum()}
        for name, part in self.parts.items():
            if self.weights[name]:
                terms[name] = part.losses(encoded).mean()
        count = count or len(batch)
        for name, term in terms.items():
            total = total + self.weights[name] * term * count
            parts[f"{name}_loss"] = term.detach() * count
        return Loss(total, count, parts)

    def encode(self, batch: Batch, ctx: Context, generator: torch.Generator | None) -> Encoded:
        """Return the corrupted text of a batch and its states. generator: of the draws; None:
        they depend on each text alone."""
        encoder = ctx.encoder(self.stream)
        text = TextIds.of(ctx.sample(self.stream), encoder)
        tokenizer = encoder.processor.tokenizer
        self.special, self.size = special_ids(tokenizer), tokenizer.size
        chosen = text.choose(self.rule.prob, generator)
        draws = generator or torch.Generator().manual_seed(0)
        rule = self.rule if generator is not None else MaskRule(self.rule.prob, 0.0, 0.0)
        corrupted = text.corrupt(chosen, rule, mask_id(encoder, rule), self.size, draws)
        docked = self.docking.dock(batch, ctx)
        reading = text.with_ids(corrupted)
        reading = reading.hiding(chosen) if self.hides_masks else reading
        features = encode_text(encoder, reading, docked=docked, hidden_states=self.layers)
        labels = {
            key: (value, batch.label_masks[key].to(value.device))
            for key, value in batch.labels.items()
            if key in batch.label_masks
        }
        return Encoded(encoder, text, chosen, corrupted, features, draws, labels, docked)

    def masked(self, encoded: Encoded, batch: Batch) -> tuple[Losses, Tensor]:
        """Return the losses of the chosen tokens, and whether each has the largest logit `[N]`."""
        positions = positions_of(encoded.chosen)
        states = self.conditions.add(encoded.features.tokens, batch)
        losses, logits = token_losses(encoded.encoder, states, encoded.text.ids, positions)
        return losses, logits.argmax(-1) == encoded.text.ids.flatten()[positions]

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return `scores` a row, by term: `nll` in nats of its `tokens`; of the masked ones also
        how many are `correct`."""
        encoded = self.encode(batch, ctx, None)
        rows: list[dict[str, Any]] = [{"scores": {}} for _ in range(len(batch))]
        if self.rule.prob and self.weight:
            losses, correct = self.masked(encoded, batch)
            for row, (nll, count) in zip(rows, losses.sums(len(rows)), strict=True):
                row["scores"][MASKED] = {"nll": nll, "tokens": count, "correct": 0}
            for index in losses.rows[correct].tolist():
                rows[index]["scores"][MASKED]["correct"] += 1
        labelled = {key.partition(".")[0] for key in encoded.labels}
        for name, part in self.parts.items():
            if part.columns() and name not in labelled:  # rows to predict have no labels
                continue
            for row, (nll, count) in zip(rows, part.losses(encoded).sums(len(rows)), strict=True):
                row["scores"][name] = {"nll": nll, "tokens": count}
            for key, values in part.measures(encoded).items():
                for row, value in zip(rows, values.tolist(), strict=True):
                    if not math.isnan(value):
                        row.setdefault("measures", {})[key] = value
        return rows

    def metrics(self) -> MaskedMetrics:
        return MaskedMetrics()

    def unigram_metrics(
        self, training: Iterable[Batch], held_out: Iterable[Batch]
    ) -> dict[str, float]:
        """Return `unigram_loss` and `unigram_perplexity` of all ordinary tokens; nothing where
        masked tokens are not predicted."""
        if not (self.rule.prob and self.weight):
            return {}
        model, metrics = Unigram(self.size), self.metrics()
        for batch in training:
            for ids in self._ordinary(batch):
                model.add(ids)
        for batch in held_out:
            for ids in self._ordinary(batch):
                score = {"nll": model.nll(ids.tolist()), "tokens": len(ids), "correct": 0}
                metrics.update([{"scores": {MASKED: score}}], [{}])
        values = metrics.compute()
        return {f"unigram_{key}": values[key] for key in ("loss", "perplexity")}

    def _ordinary(self, batch: Batch) -> Iterable[Tensor]:
        if len(batch):
            yield from ordinary_ids(batch.streams[self.stream]["main"], self.special)

    def example_rows(self) -> list[dict[str, Any]]:
        cells: dict[str, Any] = {
            column: [[0.1, 0.2, 0.6, 0.8]] for column in self.docking.columns()
        }
        for part in self.parts.values():
            cells |= part.example()
        cells |= {column: values[0] for column, values in self.conditions.values.items()}
        texts = (f"a red circle, two small words, {i}" for i in range(2))
        return [{self.stream: text, **cells} for text in texts]


def mask_id(encoder: VocabularyEncoder, rule: MaskRule) -> int:
    number: int | None = encoder.processor.tokenizer.mask_id
    if number is None and rule.prob:
        raise ValueError(
            "stream: its tokenizer has no mask token; take the model's own, bytes or bpe"
        )
    return number or 0
