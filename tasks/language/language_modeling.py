"""Language modelling: a decoder learns from texts alone, by one objective or a mixture.

The loss is `-sum_i log p(y_i | source, y_<i)` over the target of an objective and the end of the
text. See `objectives.py` for what source and target are.

Legend: `B` rows, `L` tokens of the longest target, `N` tokens of all targets, `V` vocabulary.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...backbones.base import Backbone
from ...backbones.visibility import Visibility
from ...modalities.base import Features, Loss, PositiveFloat, PositiveInt, Probability, Tokenizer
from ...modalities.messages import did_you_mean
from ..base import Context, Row, Task
from ..batch import Batch, Example, Tools
from ..common import example_row, parse_target
from ..uses import BACKBONE, DecoderUse
from .metrics import LanguageMetrics
from .objectives import OBJECTIVES, Markers, Noise, markers_of
from .packing import PackedRows
from .places import encode_digits
from .unigram import Unigram


class LanguageModeling(Task):
    """text: the text to learn, a template of columns. objectives: `causal`, `prefix`,
    `span_corruption`, `identifiers` (the names of a program), `fill_in_the_middle`, `ul2`, each
    with its weight, the chance that a row is
    trained by it. attention: of the source, on a causal backbone.

    max_length: longer texts are cut to so many tokens: at a random place in training, at the start
    in evaluation; null cuts none. noise_density, mean_span: fraction of the tokens that span
    corruption takes, and tokens of a span. sentinels: tokens that stand for spans, the pretrained
    ones where the vocabulary has them (T5), otherwise added; a text has one span fewer at most, so
    that spans are longer in a long text. split_digits: every digit of a number is a token.
    pack: tokens of a row; the texts of a batch share rows of so many and do not see each other, so
    that no loss changes and little is padded. Takes a decoder whose attention is causal.

    An evaluation scores every row by every objective; its corruptions depend on the text alone.
    """

    untrained_metrics: ClassVar[tuple[str, ...]] = ("loss", "perplexity")
    metric_names: Mapping[str, str] = {
        "loss": "mean over tokens, in nats",
        "unigram_loss": "loss of a model that knows only how often each token occurs",
        "untrained_loss": "loss of the model before its training",
        "perplexity": "exponential of the loss; 1 is best",
        "last_word_accuracy": "fraction of texts whose last word greedy decoding writes",
        **{f"{name}_loss": f"loss of the objective {name}" for name in OBJECTIVES},
        **{f"{name}_perplexity": f"perplexity of the objective {name}" for name in OBJECTIVES},
    }

    def __init__(
        self,
        *,
        text: str = "{text}",
        objectives: dict[str, float] | None = None,
        attention: Literal["causal", "prefix"] = "causal",
        max_length: PositiveInt | None = None,
        noise_density: Probability = 0.15,
        mean_span: PositiveFloat = 3.0,
        sentinels: PositiveInt = 100,
        split_digits: bool = False,
        pack: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        self.text = parse_target("text", text)
        self.objectives = {"causal": 1.0} if objectives is None else dict(objectives)
        _check_weights(self.objectives)
        if not 0 < noise_density < 1:
            raise ValueError(f"noise_density: found {noise_density}, expected between 0 and 1")
        longest = 1 if max_length is None else max_length
        limits = {
            "max_length": (longest, 1),
            "mean_span": (mean_span, 1),
            "sentinels": (sentinels, 2),
        }
        for option, (value, least) in limits.items():
            if value < least:
                raise ValueError(f"{option}: found {value}, expected at least {least}")
        if pack is not None and attention != "causal":
            raise ValueError("pack: takes `attention: causal`, since packed texts have no context")
        kinds = {attention} if pack is None else {attention, "visibility"}
        self.decoders = {BACKBONE: DecoderUse(attention=frozenset(kinds))}
        self.attention, self.max_length = attention, max_length
        self.split_digits, self.pack = split_digits, pack
        self.noise = Noise(noise_density, mean_span, markers_of(self.objectives, sentinels))
        self.encodes_context, self.vocabulary_size = False, 0  # set by `build`
        self.register_buffer("marker_ids", torch.zeros(0, dtype=torch.long), persistent=False)

    def columns(self) -> tuple[str, ...]:
        return self.text.columns

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Backbone]) -> None:
        """Find the tokens that the objectives need, sentinels, modes, marks of the middle, in the
        vocabulary, and add those that it lacks."""
        decoder = decoders[BACKBONE]
        self.encodes_context = decoder.encodes_context
        if self.pack is not None and self.encodes_context:
            raise ValueError(
                "pack: an encoder-decoder has no one row for source and target; leave it out, or "
                "use `type: causal` in backbone"
            )
        for name in self.objectives:
            if self.encodes_context and not OBJECTIVES[name].encoder:
                able = ", ".join(n for n, objective in OBJECTIVES.items() if objective.encoder)
                raise ValueError(
                    f"objectives: `{name}` leaves the encoder of an encoder-decoder without a "
                    f"text; use {able}, or `type: causal` in backbone"
                )
        ids = self.noise.markers.pretrained(decoder.tokenizer)
        absent = ids.count(None)
        added = iter(range(first := decoder.add_tokens(absent), first + absent) if absent else ())
        known = [next(added) if i is None else i for i in ids]
        self.marker_ids = torch.tensor(known, dtype=torch.long)
        self.vocabulary_size = decoder.tokenizer.size + absent

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Labels: `source` and `target`, ids `[L]` by an objective drawn by the weights, or without
        `rng` by each objective, `source.NAME`; `last.NAME`, tokens of the last word, 0 if it is
        not in the target. Reference: `text`."""
        tokenizer = tools.tokenizer()
        text = self.text.render(row)[0]
        ids = encode_digits(tokenizer, text) if self.split_digits else tokenizer.encode(text)
        if not ids:
            raise ValueError("text: is empty; expected a text of one token or more")
        last = 0 if rng is not None else _last_word_tokens(text, ids, tokenizer)
        if self.max_length is not None and len(ids) > self.max_length:
            spare = len(ids) - self.max_length
            start = int(rng.integers(spare + 1)) if rng is not None else 0
            ids, last = ids[start : start + self.max_length], 0
        labels = self._pair(self._draw(rng), ids, rng, tokenizer)
        if rng is None:
            for name in self.objectives:
                pair = self._pair(name, ids, rng, tokenizer)
                labels |= {f"{key}.{name}": value for key, value in pair.items()}
                inside = OBJECTIVES[name].keeps_end and last + 1 < len(pair["target"])
                labels[f"last.{name}"] = torch.tensor(last if inside else 0)
        return Example(labels, {"text": text})

    def _draw(self, rng: np.random.Generator | None) -> str:
        names, weights = list(self.objectives), np.array(list(self.objectives.values()))
        if rng is None or len(names) == 1:
            return names[0]
        return names[int(rng.choice(len(names), p=weights / weights.sum()))]

    def _pair(
        self, name: str, ids: list[int], rng: np.random.Generator | None, tokenizer: Tokenizer
    ) -> dict[str, Tensor]:
        """Return source and target by an objective, with the tokens at their ends: a causal row
        begins with `bos` (`eos` without one), an encoder's text and every target end with `eos`."""
        if rng is None:
            rng = np.random.default_rng(zlib.crc32(np.array(ids).tobytes()))
        noise = replace(self.noise, tokenizer=tokenizer)
        source, target = OBJECTIVES[name].corrupt(ids, noise, rng)
        start, end = tokenizer.bos_id, tokenizer.eos_id
        first = [end if start is None else start]
        source = [*source, end] if self.encodes_context else [*first, *source]
        return {"source": torch.tensor(source), "target": torch.tensor([*target, end])}

    def fit_examples(self, part: str, row: Row) -> Iterable[Any]:
        """Tokenizers of decoders are fitted on the texts."""
        if not part.endswith(".tokenizer"):
            return super().fit_examples(part, row)
        return [text for text in self.text.render(row) if text]

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the cross-entropy in float32, summed over target tokens. Parts: `correct`, tokens
        whose logit is the largest."""
        losses, correct = self._scores(batch, ctx)
        return Loss(losses.sum(), len(losses), {"correct": correct.sum()})

    def _scores(self, batch: Batch, ctx: Context, suffix: str = "") -> tuple[Tensor, Tensor]:
        """Return of each real target token, row after row, `[N]`: its loss, and whether its logit
        is the largest."""
        decoder = ctx.decoder()
        source, target = (
            Markers.resolve(batch.label(key + suffix, "has no text"), self.marker_ids)
            for key in ("source", "target")
        )
        source_mask, mask = (batch.label_masks[k + suffix] for k in ("source", "target"))
        # Positions of real tokens are computed on the CPU, without synchronizing with the device.
        positions = mask.flatten().nonzero().squeeze(1).to(target.device)  # [N]
        labels = target.flatten()[positions]
        if self.pack is not None and len(source):
            rows = PackedRows.of(source_mask, mask, self.pack)
            hidden = self._packed(decoder, torch.cat([source, target], 1), rows)
            positions = rows.predictors.to(target.device)
        else:
            context = Features(decoder.embed(source), source_mask.to(source.device))
            hidden = decoder.teacher_force(context, target, mask.to(target.device), self.attention)
        logits = decoder.logits(hidden.flatten(0, 1)[positions]).float()  # [N, V]
        correct = logits.detach().argmax(-1) == labels
        return F.cross_entropy(logits, labels, reduction="none"), correct

    @staticmethod
    def _packed(decoder: Backbone, ids: Tensor, rows: PackedRows) -> Tensor:
        """Return hidden `[R, N, D]` of the packed rows of ids `[B, S + L]`."""
        document = rows.document.to(ids.device)
        embeds = decoder.embed(ids.flatten()[rows.index.to(ids.device)])
        hidden: Tensor = decoder(embeds, document > 0, attention=Visibility.documents(document))
        return hidden

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return `scores` a row, by objective: `nll` in nats, its `tokens`, and, where the target
        has it, `last_word`: whether greedy decoding writes it."""
        scores: list[dict[str, Any]] = [{} for _ in range(len(batch))]
        for name in self.objectives:
            losses, correct = self._scores(batch, ctx, f".{name}")
            counts = batch.label_masks[f"target.{name}"].sum(1).tolist()
            lasts = batch.label(f"last.{name}", "has no text").tolist()
            parts = zip(losses.split(counts), correct.split(counts), lasts, strict=True)
            for row, (nll, right, last) in zip(scores, parts, strict=True):
                row[name] = {"nll": float(nll.detach().sum()), "tokens": len(nll)}
                if last:
                    row[name]["last_word"] = bool(right[-1 - last : -1].all())
        texts = [reference["text"] for reference in batch.references]
        return [{"text": t, "scores": row} for t, row in zip(texts, scores, strict=True)]

    def metrics(self) -> LanguageMetrics:
        return LanguageMetrics(self.objectives)

    def unigram_metrics(
        self, training: Iterable[Batch], held_out: Iterable[Batch]
    ) -> dict[str, float]:
        """Return `unigram_loss` and `unigram_perplexity` of the same targets."""
        models = {name: Unigram(self.vocabulary_size) for name in self.objectives}
        metrics = self.metrics()
        for batch in training:
            for name, ids in self._targets(batch):
                models[name].add(ids)
        for batch in held_out:
            for name, ids in self._targets(batch):
                score = {"nll": models[name].nll(ids.tolist()), "tokens": len(ids)}
                metrics.update([{"scores": {name: score}}], [{}])
        return {f"unigram_{key}": value for key, value in metrics.compute().items()}

    def _targets(self, batch: Batch) -> Iterable[tuple[str, Tensor]]:
        """Yield the real target tokens of each objective; a marker is one id, -1 - k."""
        if len(batch):
            for name in self.objectives:
                key = f"target.{name}"
                yield name, batch.labels[key][batch.label_masks[key]]

    def example_rows(self) -> list[dict[str, Any]]:
        return [example_row((self.text,), text) for text in ("a red circle", "two blue squares")]


def _check_weights(objectives: Mapping[str, float]) -> None:
    if not objectives:
        raise ValueError(f"objectives: is empty, expected one or more of {', '.join(OBJECTIVES)}")
    for name, weight in objectives.items():
        if name not in OBJECTIVES:
            raise ValueError(
                f"objectives: found {name!r}, expected {', '.join(OBJECTIVES)}"
                f"{did_you_mean(name, OBJECTIVES)}"
            )
        if not 0 < weight < float("inf"):
            raise ValueError(f"objectives.{name}: found {weight}, expected a weight above 0")


def _last_word_tokens(text: str, ids: list[int], tokenizer: Tokenizer) -> int:
    """Return the number of tokens of the last word; 0 if there is no word before it."""
    words = text.rsplit(maxsplit=1)
    if len(words) < 2:
        return 0
    before = tokenizer.encode(words[0])
    shared = next((k for k, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), None)
    return len(ids) - (min(len(before), len(ids)) if shared is None else shared)
