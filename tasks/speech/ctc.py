"""CTC: recognition from the frames of a stream, without a decoder.

Graves et al., "Connectionist Temporal Classification", 2006; with intermediate heads that condition
the layers after them, and tokens of language or task, as in Peng et al., "OWSM-CTC", 2024. A long
recording is encoded in overlapping windows as long as rows in training.

Legend: `B` rows, `T` frames, `V` classes, the blank (the last) among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...modalities.base import Features, Fraction, Loss, PositiveInt, Probability, Tokenizer
from ..base import Context, Row, Task, Unit
from ..batch import Batch, Example, Tools
from ..common import example_row, parse_target
from ..uses import HeadUse, StreamUse
from .conditions import CategoryEncoder
from .decoding import fitting_rows
from .inter_ctc import (
    AddCondition,
    ConditionEmbedding,
    InterCTCHead,
    LayerHook,
    check_options,
    compose_hooks,
    ctc_losses,
    frame_logits,
)
from .length_stats import LengthHistogram
from .lexicon import Lexicon
from .metrics import SpeechMetrics
from .normalizers import Normalizer, normalizer_of
from .transcribe import DecodeOptions, path_scores, path_units, transcribe


class CTC(Task):
    """CTC recognition of one stream.

    input: the stream. target: the transcript, a template of columns. allow_empty: learn from rows
    with an empty transcript, which are refused otherwise.

    interctc_layers: layers of the encoder whose output a further CTC head reads; its predictions
    are added back to the hidden states. The loss is `(1 - interctc_weight)` times that of the last
    head plus `interctc_weight` times the mean over these layers. condition: columns (language,
    task) whose values the encoder is conditioned on; in training each row keeps its values with
    probability `condition_prob`. beam: beam width; 1 takes the best path. lexicon: restrict the
    beam to words of the training transcripts. normalizer: of the metrics' texts
    (`SpeechMetrics`).

    tokenizer, condition_encoder, lexicon_words: fitted on the training split.

    window: frames of a piece of a recording that is longer than all training rows; by default
    the 90th percentile of their lengths. overlap: the fraction of a piece that it shares with
    the next.
    """

    ability: ClassVar[str] = "transcribe"

    head_types: ClassVar[Mapping[str, str]] = {"head": "per_token"}
    eval_options: Mapping[str, Any] = {"times": None}

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        condition_encoder: CategoryEncoder,
        lexicon_words: Lexicon,
        input: str = "audio",
        target: str = "{text}",
        allow_empty: bool = False,
        interctc_layers: list[int] | None = None,
        interctc_weight: Probability = 0.8,
        condition: list[str] | None = None,
        condition_prob: Probability = 0.5,
        beam: PositiveInt = 1,
        lexicon: bool = False,
        normalizer: Normalizer = "unicode",
        window: PositiveInt | None = None,
        overlap: Fraction = 0.25,
    ) -> None:
        super().__init__()
        check_options(
            interctc_weight=interctc_weight,
            condition_prob=condition_prob,
            overlap=overlap,
            window=window,
            interctc_layers=interctc_layers,
        )
        if beam < 1 or (lexicon and beam < 2):
            least = "2 with a lexicon, which a search follows" if lexicon else "1"
            raise ValueError(f"beam: found {beam}, expected at least {least}")
        self.target = parse_target("target", target)
        hooks = frozenset({"layer_hooks"}) if interctc_layers or condition else frozenset[str]()
        self.input = input
        self.streams = {input: StreamUse(supports=hooks)}
        self.tokenizer, self.condition_encoder, self.lexicon_words = (
            tokenizer,
            condition_encoder,
            lexicon_words,
        )
        self.beam, self.lexicon = beam, lexicon
        condition_encoder.set_columns(condition or ())
        self.allow_empty, self.interctc_layers = allow_empty, tuple(interctc_layers or ())
        self.interctc_weight, self.condition_prob = interctc_weight, condition_prob
        self.normalizer: Normalizer = normalizer
        self.lengths = LengthHistogram(window, overlap)

    @property
    def blank(self) -> int:
        """The blank's class, after those of the tokenizer."""
        return self.tokenizer.size

    @property
    def head_uses(self) -> Mapping[str, HeadUse]:
        return {"head": HeadUse(stream=self.input, out_dim=self.blank + 1)}

    def build(self, widths: Mapping[str, int], decoders: Mapping[str, Any]) -> None:
        """Create the modules. Raise ValueError, before training, if the tokenizer cannot encode the
        lexicon."""
        if self.lexicon:
            self.lexicon_words.tree(self.tokenizer)
        dim = widths[f"{self.input}.encoder"]
        if self.interctc_layers:
            self.between = InterCTCHead(dim, self.blank + 1)
        if self.condition_encoder.columns:
            self.hints = ConditionEmbedding(
                dim, [len(self.condition_encoder.values[c]) for c in self.condition_encoder.columns]
            )

    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.target.columns, *self.condition_encoder.columns)))

    def fit_examples(self, part: str, row: Row) -> Iterable[Any]:
        """Tokenizer and lexicon are fitted on the transcripts, the conditions on whole rows."""
        if part in ("tokenizer", "lexicon_words"):
            return (self.target.render(row)[0],)
        return super().fit_examples(part, row)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Labels: `ids`, the tokens of the transcript; none if the row lacks its columns, as when a
        new recording is transcribed; `condition`, an index for each condition. Reference: `text`.
        """
        example = Example()
        if self.condition_encoder.columns:
            known = self.condition_encoder.read(row)
            numbers = [known.get(column, 0) for column in self.condition_encoder.columns]
            example.labels["condition"] = torch.tensor(numbers)
            example.reference["condition"] = known
        if any(column not in row for column in self.target.columns):
            return example
        text = self.target.render(row)[0]
        if not text.strip() and not self.allow_empty:
            raise ValueError(
                "target: the transcript is empty; leave the row out, or set allow_empty: true to "
                "learn from silence"
            )
        example.reference["text"] = text
        try:
            example.labels["ids"] = torch.tensor(self.tokenizer.encode(text), dtype=torch.long)
        except (
            ValueError
        ):  # a character that training did not have: in evaluation the metrics count it
            if rng is not None:
                raise
        return example

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return a sum over rows, with the count of target tokens. A row whose text needs more
        frames than available fails and is left out."""
        intermediate: list[tuple[Tensor, Tensor]] = []
        features, encoded = self._features(batch, ctx, intermediate)
        logits = frame_logits(self, "head", features)  # [B, T, V]
        last_weight = 1 - self.interctc_weight if intermediate else 1.0
        heads = [(logits, features.mask, last_weight)]
        heads += [(z, mask, self.interctc_weight / len(intermediate)) for z, mask in intermediate]
        frames = [_frames(z, mask) for z, mask, _ in heads]
        if self.training and not logits.is_meta:
            self.lengths.add(encoded.lengths)
        fewest = [min(counts) for counts in zip(*frames, strict=True)]
        rows, ids, failed = fitting_rows(batch, fewest)
        losses = [
            weight * ctc_losses(z[rows], [of[i] for i in rows], ids).sum() if rows else z.sum() * 0
            for (z, _, weight), of in zip(heads, frames, strict=True)
        ]
        total = torch.stack(losses).sum()
        parts = {}
        if intermediate:
            parts["interctc"] = torch.stack(losses[1:]).sum().detach() / self.interctc_weight
        # An empty transcript counts as one token: a batch of them would divide by zero.
        return Loss(total, sum(max(1, len(row)) for row in ids), parts, failed)

    def predict(
        self,
        batch: Batch,
        ctx: Context,
        *,
        beam: PositiveInt | None = None,
        times: bool | None = False,
        confidence: bool = False,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Return `{"text": ...}` a row. beam: in place of the task's own; 1 ignores the lexicon.
        times: add `words`, `[[word, first second, last second], ...]`; None: if the features have a
        time axis. confidence: the geometric mean of the tokens' highest posteriors on the best
        path."""
        beam = self.beam if beam is None else beam
        features, _ = self._features(batch, ctx, [], long=True)
        if times is None:
            times = features.spacing is not None and features.origin is not None
        log_probs = frame_logits(self, "head", features).log_softmax(-1).cpu()  # [B, T, V]
        tree = self.lexicon_words.tree(self.tokenizer) if self.lexicon else None
        reading = DecodeOptions(self.tokenizer, self.blank, beam, times, confidence, tree)
        return [
            transcribe(row[:length], features, reading, self.lengths.longest)
            for row, length in zip(log_probs, features.lengths.tolist(), strict=True)
        ]

    def units(self, batch: Batch, ctx: Context) -> list[Unit]:
        """Return the words of the best path of the first row."""
        log_probs = self._log_probs(batch, ctx)[0]
        return path_units(log_probs, self.tokenizer, self.blank)

    def unit_scores(self, batch: Batch, ctx: Context, units: Sequence[Unit]) -> Tensor:
        """Return `[B, U]`, the log-probability of each word's part of the path."""
        return path_scores(self._log_probs(batch, ctx), units)

    def _log_probs(self, batch: Batch, ctx: Context) -> Tensor:
        return frame_logits(self, "head", self._features(batch, ctx, [])[0]).log_softmax(-1)

    def comparable(self, text: str) -> str:
        return normalizer_of(self.normalizer)(text)

    def metrics(self) -> SpeechMetrics:
        return SpeechMetrics(self.normalizer)

    def example_rows(self) -> list[dict[str, Any]]:
        rows = [example_row([self.target], text) for text in ("a", "go")]
        hints = {c: (known or ["en"])[0] for c, known in self.condition_encoder.values.items()}
        return [{**hints, **row} for row in rows]

    def _features(
        self,
        batch: Batch,
        ctx: Context,
        intermediate: list[tuple[Tensor, Tensor]],
        long: bool = False,
    ) -> tuple[Features, Features]:
        """Return the features of the stream and of its encoder; append the logits and masks of
        intermediate heads to `intermediate`."""
        options: dict[str, Any] = {}
        if self.interctc_layers or self.condition_encoder.columns:
            options["layer_hooks"] = self._hooks(batch, intermediate)
        if long and (windows := self.lengths.window()) is not None:
            options["window"] = windows
        features = ctx.encode(self.input, **options)
        return features, ctx.encode(f"{self.input}.encoder", **options)

    def _hooks(
        self, batch: Batch, intermediate: list[tuple[Tensor, Tensor]]
    ) -> Mapping[int, LayerHook]:
        hooks: list[tuple[int, LayerHook]] = []
        if self.condition_encoder.columns:
            hooks.append((0, AddCondition(self.hints(self._conditions(batch)))))
        hooks += [(layer, self.between.tap(intermediate)) for layer in self.interctc_layers]
        return compose_hooks(hooks)

    def _conditions(self, batch: Batch) -> Tensor:
        """Return `[B, columns]`; in training a fraction of the rows has no condition."""
        conditions = batch.label("condition", "has no condition")
        if self.training:
            visible = torch.rand(len(batch), 1) < self.condition_prob
            conditions = conditions * visible.to(conditions.device)
        device: torch.device = next(self.hints.parameters()).device
        return conditions.to(device)


def _frames(logits: Tensor, mask: Tensor) -> list[int]:
    """Return the number of real frames of each row; a large number in a dry run, which has no
    values."""
    if mask.is_meta:
        return [1 << 30] * len(logits)
    lengths: list[int] = mask.sum(1).tolist()
    return lengths
