"""CTC: a transcript spelled along the frames of a stream, without a decoder.

Graves et al., "Connectionist Temporal Classification", 2006; with heads in between that condition
the layers after them, and tokens of language or task, as in Peng et al., "OWSM-CTC", 2024. A
long recording is encoded in overlapping windows of lengths that training saw.

Legend: `B` rows, `T` frames, `V` classes, the blank (the last) among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..backbones.base import Backbone
from ..modalities.base import Features, Tokenizer
from ._conditions import Conditions
from ._ctc_heads import Between, Hints, Tap, Told, chained, ctc_losses, frame_logits
from ._lengths import Lengths
from ._lexicon import Lexicon
from ._spelling import spelled
from ._transcripts import Reading, transcribe
from .base import Batch, Encode, Loss, Row, Task
from .prompts import Prompt, example_row
from .speech_metrics import Normalizer, SpeechMetrics


class Ctc(Task):
    """stream: what is heard. text: the transcript, a template of columns. silence: learn from
    rows without a word, which are refused otherwise.

    between: layers of the encoder behind which a further head reads the same text, and gives
    what it read to the layers after it; the loss is then `(1 - share)` of the last head's and
    `share` of their mean. condition: columns (language, task) that the encoder is told, in
    training for a part `known` of the rows. beam: texts that are followed at once in reading; 1
    takes the best path. lexicon: follow texts of the training words alone. normalizer: how
    metrics compare (`speech_metrics`).

    window: frames of a piece of a recording that is longer than all training rows; by default
    the 90th percentile of their lengths. overlap: the part of a piece that it shares.
    """

    head_names: ClassVar[tuple[str, ...]] = ("head",)
    head_types: ClassVar[Mapping[str, str]] = {"head": "per_token"}
    in_full: Mapping[str, Any] = {"times": None}

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        values: Conditions,
        words: Lexicon,
        stream: str = "audio",
        text: str = "{text}",
        silence: bool = False,
        between: list[int] | None = None,
        share: float = 0.8,
        condition: list[str] | None = None,
        known: float = 0.5,
        beam: int = 1,
        lexicon: bool = False,
        normalizer: Normalizer = "basic",
        window: int | None = None,
        overlap: float = 0.25,
    ) -> None:
        super().__init__()
        _check(share=share, known=known, overlap=overlap, window=window, between=between)
        if beam < 1 or (lexicon and beam < 2):
            least = "2 with a lexicon, which a search follows" if lexicon else "1"
            raise ValueError(f"beam: found {beam}, expected at least {least}")
        self.text = _template(text)
        self.streams = (stream,)
        self.tokenizer, self.values, self.words = tokenizer, values, words
        self.beam, self.lexicon = beam, lexicon
        values.bind(condition or ())
        self.silence, self.layers_between = silence, tuple(between or ())
        self.share, self.known = share, known
        self.normalizer: Normalizer = normalizer
        self.lengths = Lengths(window, overlap)
        if between or condition:
            self.needs = {stream: frozenset({"layer_hooks"})}

    @property
    def blank(self) -> int:
        """The class behind the tokenizer's."""
        return self.tokenizer.size

    def head_widths(self) -> dict[str, tuple[str, int]]:
        return {"head": (self.streams[0], self.blank + 1)}

    def measure(self, widths: Mapping[str, int]) -> None:
        dim = widths[f"{self.streams[0]}.encoder"]
        if self.layers_between:
            self.between = Between(dim, self.blank + 1)
        if self.values.columns:
            self.hints = Hints(dim, [len(self.values.values[c]) for c in self.values.columns])

    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.text.columns, *self.values.columns)))

    def material(self, part: str, row: Row) -> Iterable[Any]:
        """Tokenizer and lexicon are fitted on the transcripts, the conditions on whole rows."""
        return (row,) if part == "values" else (self.text.render(row)[0],)

    def targets(self, row: Row) -> dict[str, Any]:
        """`text`: the transcript; none where the row lacks its columns, as when a new recording
        is transcribed. `condition`: places of what is known of the row."""
        found: dict[str, Any] = {}
        if self.values.columns:
            found["condition"] = self.values.read(row)
        if all(column in row for column in self.text.columns):
            found["text"] = self.text.render(row)[0]
            if not found["text"].strip() and not self.silence:
                raise ValueError(
                    "text: the transcript is empty; leave the row out, or say silence: true to "
                    "learn that nothing is said"
                )
        return found

    def loss(self, batch: Batch, encode: Encode, backbone: Backbone | None) -> Loss:
        """Summed over rows, by the count of target tokens. A row whose text needs more frames
        than there are, or holds what the tokenizer does not know, is failed and left out."""
        heard: list[tuple[Tensor, Tensor]] = []
        features, encoded = self._features(batch, encode, heard)
        logits = frame_logits(self, "head", features)  # [B, T, V]
        scales = [(logits, features.mask, 1 - self.share if heard else 1.0)]
        scales += [(found, mask, self.share / len(heard)) for found, mask in heard]
        frames = [_frames(found, mask) for found, mask, _ in scales]
        if self.training and not logits.is_meta:
            self.lengths.add(encoded.lengths)
        fewest = [min(several) for several in zip(*frames, strict=True)]
        good, ids, failed = spelled(self.tokenizer, batch, fewest)
        each = [
            scale * ctc_losses(found[good], [of[i] for i in good], ids).sum()
            if good
            else found.sum() * 0
            for (found, _, scale), of in zip(scales, frames, strict=True)
        ]
        total = torch.stack(each).sum()
        parts = {"between": torch.stack(each[1:]).sum().detach() / self.share} if heard else {}
        # Silence counts as one token: a batch of it would be divided by nothing.
        return Loss(total, sum(max(1, len(row)) for row in ids), parts, failed)

    def predict(
        self,
        batch: Batch,
        encode: Encode,
        backbone: Backbone | None,
        *,
        beam: int | None = None,
        times: bool | None = False,
        confidence: bool = False,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """`{"text": ...}` a row. beam: in place of the task's own; 1 follows no lexicon.
        times: `words`, `[[word, first second, last second], ...]`; None: where frames say when
        they are. confidence: the geometric mean of the tokens' highest posteriors, of the best
        path."""
        beam = self.beam if beam is None else beam
        if options or beam < 1:
            found = ", ".join(options) if options else f"beam {beam}"
            raise ValueError(f"ctc: found {found}; expected beam: 1 or more, times, confidence")
        features, _ = self._features(batch, encode, [], long=True)
        if times is None:
            times = features.step is not None and features.origin is not None
        log_probs = frame_logits(self, "head", features).log_softmax(-1).cpu()  # [B, T, V]
        tree = self.words.tree(self.tokenizer) if self.lexicon else None
        reading = Reading(self.tokenizer, self.blank, beam, times, confidence, tree)
        return [
            transcribe(row[:length], features, reading, self.lengths.longest)
            for row, length in zip(log_probs, features.lengths.tolist(), strict=True)
        ]

    def metrics(self) -> SpeechMetrics:
        return SpeechMetrics(self.normalizer)

    def example(self) -> list[dict[str, Any]]:
        said = [example_row([self.text], text) for text in ("a", "go")]
        hints = {c: (known or ["en"])[0] for c, known in self.values.values.items()}
        return [{**hints, **row} for row in said]

    def _features(
        self,
        batch: Batch,
        encode: Encode,
        heard: list[tuple[Tensor, Tensor]],
        long: bool = False,
    ) -> tuple[Features, Features]:
        """The stream's end and its encoder's; what heads in between read goes to `heard`."""
        stream = self.streams[0]
        options: dict[str, Any] = {}
        if self.needs:
            options["layer_hooks"] = self._taps(batch, heard)
        if long and (window := self.lengths.window()) is not None:
            options["window"] = window
        features = encode(stream, **options)
        return features, encode(f"{stream}.encoder", **options)

    def _taps(self, batch: Batch, heard: list[tuple[Tensor, Tensor]]) -> Mapping[int, Tap]:
        taps: list[tuple[int, Tap]] = []
        if self.values.columns:
            taps.append((0, Told(self.hints(self._places(batch)))))
        taps += [(layer, self.between.tap(heard)) for layer in self.layers_between]
        return chained(taps)

    def _places(self, batch: Batch) -> Tensor:
        """`[B, columns]`; in training part of the rows are told nothing."""
        told = [[t["condition"].get(c, 0) for c in self.values.columns] for t in batch.targets]
        places = torch.tensor(told)
        if self.training:
            places = places * (torch.rand(len(batch), 1) < self.known)
        device: torch.device = next(self.hints.parameters()).device
        return places.to(device)


def _frames(logits: Tensor, mask: Tensor) -> list[int]:
    """Real frames of each row; all of them in a dry run, which has no values."""
    if mask.is_meta:
        return [1 << 30] * len(logits)
    lengths: list[int] = mask.sum(1).tolist()
    return lengths


def _template(text: str) -> Prompt:
    found = Prompt(text)
    if found.streams or not found.columns:
        raise ValueError(
            f"text: {text!r} must be made of columns, such as {{text}}, without streams"
        )
    return found


def _check(*, between: list[int] | None, window: int | None, **shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share < 1 and not (name == "known" and share == 1):
            raise ValueError(f"{name}: found {share}, expected at least 0 and less than 1")
    if between and (len(set(between)) < len(between) or min(between) < 0):
        raise ValueError(f"between: found {between}, expected layers from 0 on, each once")
    if window is not None and window < 4:
        raise ValueError(f"window: found {window}, expected at least 4 frames")
