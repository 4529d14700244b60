"""Language modelling: a decoder learns from texts alone, by one objective or a mixture.

The loss is `-sum_i log p(y_i | source, y_<i)` over the target of an objective and the end of the
text. See `objectives.py` for what source and target are.

Legend: `B` rows, `L` tokens of the longest target, `N` tokens of all targets, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...backbones.base import Backbone, GenerationOptions
from ...modalities.base import Features, Loss, PositiveFloat, PositiveInt, Probability
from ..base import Context, Row, Task
from ..batch import Batch, Example, Tools
from ..common import example_row, parse_target
from ..uses import BACKBONE, DecoderUse, StreamUse
from .metrics import LanguageMetrics
from .mixture import Mixture, check_limits, check_weights, last_word_tokens
from .objectives import OBJECTIVES, Markers, Noise, markers_of
from .packing import PackedRows, packed_hidden
from .span_dock import SpanDock
from .spans import Phrases, encode_digits, keyphrases_of
from .terms import TERMS, TermInputs, Terms
from .unigram import Unigram, unigram_scores


class LanguageModeling(Task):
    """text: the text to learn, a template of columns. objectives: `causal`, `prefix`,
    `span_corruption`, `identifiers` (the names of a program), `collocations` (words that belong
    together), `keyphrases`, `fill_in_the_middle`, `ul2`, each with its weight, the chance that
    a row is trained by it. attention: of the source, on a causal backbone.

    max_length: longer texts are cut to so many tokens: at a random place in training, at the start
    in evaluation; null cuts none. noise_density, mean_span: fraction of the tokens that span
    corruption takes, and tokens of a span. sentinels: tokens that stand for spans, the pretrained
    ones where the vocabulary has them (T5), otherwise added; a text has one span fewer at most, so
    that spans are longer in a long text. split_digits: every digit of a number is a token.
    pack: tokens of a row; the texts of a batch share rows of so many and do not see each other, so
    that no loss changes and little is padded. Takes a decoder whose attention is causal.

    dock: a stream of texts, `{columns: {dock: text}}`; its encoder reads random spans of the text
    (`noise_density`, `mean_span`) in both directions, which stand in place of their tokens, and the
    causal loss is that of the others.

    phrases: statistics of the training texts, for `collocations` (`min_count`, `min_pmi`) and
    `keyphrases` (`common`, `max_words`, `most`). keyphrases: a column with those of a text, a list
    or a string with `;` between; by default they are chosen by the statistics.

    terms: losses beside this one, on an encoder-decoder, each with its `weight`, logged apart:
    `contrast`, `denoising`, `detection`, `matching`, `redenoising`.

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
        **{f"{name}_loss": f"loss of the term {name}" for name in TERMS},
        "contrast_accuracy": "fraction of texts nearest to what belongs to them, in the batch",
        "matching_accuracy": "fraction of pairs and of hard negatives rightly told apart",
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
        dock: str | None = None,
        phrases: Phrases | None = None,
        keyphrases: str | None = None,
        terms: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.text = parse_target("text", text)
        self.objectives = {"causal": 1.0} if objectives is None else dict(objectives)
        check_weights(self.objectives)
        if not 0 < noise_density < 1:
            raise ValueError(f"noise_density: found {noise_density}, expected between 0 and 1")
        check_limits(max_length=max_length, mean_span=mean_span, sentinels=sentinels)
        if pack is not None and attention != "causal":
            raise ValueError("pack: takes `attention: causal`, since packed texts have no context")
        kinds = {attention} if pack is None else {attention, "visibility"}
        self.decoders = {BACKBONE: DecoderUse(attention=frozenset(kinds))}
        self.attention, self.max_length = attention, max_length
        self.split_digits, self.pack = split_digits, pack
        self.dock = None if dock is None else SpanDock(dock, noise_density, mean_span)
        if self.dock is not None:
            if pack is not None or list(self.objectives) != ["causal"] or attention != "causal":
                raise ValueError("dock: takes `objectives: {causal: 1}` alone, and no pack")
            self.streams = {self.dock.stream: StreamUse()}
            self.self_supervised = frozenset({self.dock.stream})  # its spans are the text's
        self.terms = Terms(terms or [], TERMS)
        self.phrases = Phrases() if phrases is None else phrases
        self.phrases.enabled = any(OBJECTIVES[name].phrases for name in self.objectives)
        self.keyphrases = keyphrases
        markers = markers_of(self.objectives, sentinels)
        self.noise = Noise(noise_density, mean_span, markers, phrases=self.phrases)
        self.encodes_context, self.vocabulary_size = False, 0  # set by `build`
        self.register_buffer("marker_ids", torch.zeros(0, dtype=torch.long), persistent=False)

    def columns(self) -> tuple[str, ...]:
        named = () if self.keyphrases is None else (self.keyphrases,)
        return tuple(dict.fromkeys((*self.text.columns, *named, *self.terms.columns())))

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
        self.terms.build(decoder)
        if self.dock is not None:
            self.dock.build(widths[f"{self.dock.stream}.encoder"], decoder.dim)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Labels: `source` and `target`, ids `[L]` by an objective drawn by the weights, or without
        `rng` by each objective, `source.NAME`; `last.NAME`, tokens of the last word, 0 if it is
        not in the target. Reference: `text`."""
        tokenizer = tools.tokenizer()
        text = self.text.render(row)[0]
        ids = encode_digits(tokenizer, text) if self.split_digits else tokenizer.encode(text)
        if not ids:
            raise ValueError("text: is empty; expected a text of one token or more")
        last = 0 if rng is not None else last_word_tokens(text, ids, tokenizer)
        if self.max_length is not None and len(ids) > self.max_length:
            spare = len(ids) - self.max_length
            start = int(rng.integers(spare + 1)) if rng is not None else 0
            ids, last = ids[start : start + self.max_length], 0
        column = self.keyphrases
        keyphrases = None if column is None else keyphrases_of(column, row[column])
        noise = replace(self.noise, tokenizer=tokenizer, keyphrases=keyphrases)
        mixture = Mixture(self.objectives, noise, self.encodes_context)
        labels = mixture.pair(mixture.draw(rng), ids, rng)
        if rng is None:
            for name in self.objectives:
                pair = mixture.pair(name, ids, rng)
                labels |= {f"{key}.{name}": value for key, value in pair.items()}
                ends = OBJECTIVES[name].keeps_end and self.dock is None
                inside = ends and last + 1 < len(pair["target"])
                labels[f"last.{name}"] = torch.tensor(last if inside else 0)
        reference: dict[str, Any] = {"text": text}
        if self.dock is not None:
            reference["docked"] = self.dock.draw(ids, tokenizer, rng)
        return Example(labels | self.terms.prepare(row, ids, tokenizer), reference)

    def fit_examples(self, part: str, row: Row) -> Iterable[Any]:
        """Tokenizers of decoders and phrases are fitted on the texts."""
        if part != "phrases" and not part.endswith(".tokenizer"):
            return super().fit_examples(part, row)
        return [text for text in self.text.render(row) if text]

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the cross-entropy in float32, summed over target tokens; the mean of each term
        counts as often. Parts: `correct`, tokens whose logit is the largest, and each term."""
        logits, labels = self._logits(batch, ctx)
        losses = F.cross_entropy(logits, labels, reduction="none")
        total, parts = losses.sum(), dict[str, Tensor]()
        if ctx.logs:
            parts["correct"] = (logits.detach().argmax(-1) == labels).sum()
        if self.terms.active:
            inputs = TermInputs.of(batch, ctx.decoder(), self.marker_ids, ctx.generator)
            for name, mean in self.terms.means(inputs).items():
                total = total + self.terms.weights[name] * mean * len(losses)
                parts[f"{name}_loss"] = mean.detach() * len(losses)
        return Loss(total, len(losses), parts)

    def _scores(self, batch: Batch, ctx: Context, suffix: str = "") -> tuple[Tensor, Tensor]:
        """Return of each real target token, row after row, `[N]`: its loss, and whether its logit
        is the largest."""
        logits, labels = self._logits(batch, ctx, suffix)
        correct = logits.detach().argmax(-1) == labels
        return F.cross_entropy(logits, labels, reduction="none"), correct

    def _logits(self, batch: Batch, ctx: Context, suffix: str = "") -> tuple[Tensor, Tensor]:
        """Return logits `[N, V]`, float32, and ids `[N]` of the real target tokens."""
        decoder = ctx.decoder()
        source, target = (
            Markers.resolve(batch.label(key + suffix, "has no text"), self.marker_ids)
            for key in ("source", "target")
        )
        source_mask, mask = (batch.label_masks[k + suffix] for k in ("source", "target"))
        # Positions of real tokens are computed on the CPU, without synchronizing with the device.
        kept = self._kept(batch, suffix)
        positions = kept.flatten().nonzero().squeeze(1).to(target.device)  # [N]
        labels = target.flatten()[positions]
        if self.dock is not None and len(source):
            docked = [reference["docked"] for reference in batch.references]
            pair = (source, source_mask), (target, mask)
            hidden, positions = self.dock.hidden(ctx, decoder, *pair, docked)
        elif self.pack is not None and len(source):
            rows = PackedRows.of(source_mask, mask, self.pack)
            hidden = packed_hidden(decoder, torch.cat([source, target], 1), rows)
            positions = rows.predictors.to(target.device)
        else:
            context = Features(decoder.embed(source), source_mask.to(source.device))
            hidden = decoder.teacher_force(context, target, mask.to(target.device), self.attention)
        return decoder.logits(hidden.flatten(0, 1)[positions]).float(), labels

    def _kept(self, batch: Batch, suffix: str) -> Tensor:
        """Return the target tokens `[B, L]` that are learned, a mask on the CPU."""
        mask = batch.label_masks[f"target{suffix}"]
        if self.dock is None:
            return mask
        return self.dock.kept(mask, [reference["docked"] for reference in batch.references])

    def predict(  # type: ignore[override]  # no other option
        self,
        batch: Batch,
        ctx: Context,
        *,
        write: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> list[Any]:
        """Return `scores` a row, by objective: `nll` in nats, its `tokens`, and, where the target
        has it, `last_word`: whether greedy decoding writes it. `text`: the row's; with `write` the
        decoder writes the target of the first objective, and the text is what its source and this
        target make: a new example where it samples (`do_sample: true`)."""
        decoder = ctx.decoder()
        scores: list[dict[str, Any]] = [{} for _ in range(len(batch))]
        for name in self.objectives:
            losses, correct = self._scores(batch, ctx, f".{name}")
            counts = self._kept(batch, f".{name}").sum(1).tolist()
            lasts = batch.label(f"last.{name}", "has no text").tolist()
            parts = zip(losses.split(counts), correct.split(counts), lasts, strict=True)
            for row, (nll, right, last) in zip(scores, parts, strict=True):
                row[name] = {"nll": float(nll.detach().sum()), "tokens": len(nll)}
                if last:
                    row[name]["last_word"] = bool(right[-1 - last : -1].all())
        if write:
            mixture = Mixture(self.objectives, replace(self.noise, tokenizer=decoder.tokenizer))
            texts = mixture.write(batch, decoder, self.attention, self.marker_ids, options)
        else:
            texts = [reference["text"] for reference in batch.references]
        rows = [{"text": t, "scores": row} for t, row in zip(texts, scores, strict=True)]
        if self.terms.active:
            inputs = TermInputs.of(batch, decoder, self.marker_ids, None)
            self.terms.score(inputs, rows)
        return rows

    def metrics(self) -> LanguageMetrics:
        return LanguageMetrics(self.objectives)

    def unigram_metrics(
        self, training: Iterable[Batch], held_out: Iterable[Batch]
    ) -> dict[str, float]:
        """Return `unigram_loss` and `unigram_perplexity` of the same targets."""
        models = {name: Unigram(self.vocabulary_size) for name in self.objectives}
        pairs = [self._targets(batches) for batches in (training, held_out)]
        metrics = self.metrics()
        for name, nll, count in unigram_scores(models, *pairs):
            metrics.update([{"scores": {name: {"nll": nll, "tokens": count}}}], [{}])
        return {f"unigram_{key}": value for key, value in metrics.compute().items()}

    def _targets(self, batches: Iterable[Batch]) -> Iterator[tuple[str, Tensor]]:
        """Yield the real target tokens of each objective; a marker is one id, -1 - k."""
        for batch in batches:
            for name in self.objectives if len(batch) else ():
                yield name, batch.labels[f"target.{name}"][self._kept(batch, f".{name}")]

    def example_rows(self) -> list[dict[str, Any]]:
        return [example_row((self.text,), text) for text in ("a red circle", "two blue squares")]
