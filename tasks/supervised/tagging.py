"""Tagging: a label for each word of a text, or for each token of any other stream.

Devlin et al., "BERT", 2019, section 5.3: a word's tag is read at its first token. Of a causal
encoder only the last token has read the whole word, and of characters the mean sees all.

Legend: `B` rows, `T` tokens, `U` units that are tagged (words or tokens), `K` tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...connectors.layout import as_sequence
from ...modalities.base import Features, Fraction, Loss, RowErrors
from ...modalities.text.read import read
from ..base import Context, Metrics, Row, Task
from ..batch import Batch, Example, Tools
from ..common import token_output, word_places
from ..uses import HeadUse, StreamUse
from .entities import OUTSIDE, TagMetrics, entities, has_entities
from .label_encoder import LabelEncoder


class Tagging(Task):
    """input: the stream. target: the column of tags, a list for each row: of a text one tag for
    each word, separated by spaces; of any other stream one for each token (frames of a sound, items
    of a set). pool: the tokens of a word whose scores count. smoothing: label smoothing.

    Tags that are all `O`, `B-x`, `I-x` (`E-x`, `S-x`) mark entities, which are predicted and
    measured as such.
    """

    ability: ClassVar[str] = "tag"
    head_types: ClassVar[Mapping[str, str]] = {"head": "per_token"}

    def __init__(
        self,
        *,
        input: str,
        labels: LabelEncoder,
        target: str = "tags",
        pool: Literal["first", "last", "mean"] = "first",
        smoothing: Fraction = 0.0,
    ) -> None:
        super().__init__()
        labels.set_columns(target)
        self.input, self.streams = input, {input: StreamUse()}
        self.labels, self.target, self.pool, self.smoothing = labels, target, pool, smoothing

    @property
    def head_uses(self) -> Mapping[str, HeadUse]:
        return {"head": HeadUse(stream=self.input, out_dim=len(self.labels))}

    @property
    def metric_names(self) -> Mapping[str, str]:
        classes = self.labels.classes
        if not has_entities(classes):
            return {"accuracy": "fraction of words or tokens with the right tag"}
        types = {str(tag)[2:] for tag in classes if tag != OUTSIDE}
        return {
            "f1": "harmonic mean of precision and recall, over all entities",
            "precision": "fraction of predicted entities whose type and ends are right",
            "recall": "fraction of the references' entities that are found",
            "macro_f1": "f1 of each type of entity, mean over types",
            **{f"{kind}_f1": "f1 of entities of this type" for kind in sorted(types)},
        }

    def columns(self) -> tuple[str, ...]:
        return (self.target,)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Labels: `tags [U]`, and of a text `words [U, 2]`, first token and the one behind the
        last, and `tail`, the special tokens at its end. Reference: `tags`, `words`."""
        example = Example()
        tokenizer, cell = tools.stream_tokenizers.get(self.input), row.get(self.input)
        if tokenizer is not None and cell is not None and not isinstance(cell, (list, tuple)):
            prompt = tools.stream_prompts.get(self.input, "")
            places, tail = word_places(tokenizer, read(cell), prompt)
            spans = [place[1:] for place in places]
            example.labels["words"] = torch.tensor(spans, dtype=torch.long).view(-1, 2)
            example.labels["tail"] = torch.tensor(tail)
            example.reference["words"] = [place[0] for place in places]
        if self.target in row:
            if not isinstance(row[self.target], (list, tuple)):
                raise ValueError(
                    f"the column {self.target!r} holds {row[self.target]!r}, expected a list of "
                    "tags, one for each word or token"
                )
            tags = self.labels.read(row)
            indices = [self.labels.index(tag) for tag in tags]
            example.labels["tags"] = torch.tensor(indices, dtype=torch.long)
            example.reference["tags"] = tags
        return example

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return a sum over units; words of a text that was cut are left out. Parts: `correct`."""
        target = batch.label("tags", f"has no tags; add the column {self.target!r}")
        logits, real = self._units(batch, ctx)
        count = min(target.shape[1], logits.shape[1])  # on the meta device they may differ
        target, logits, real = target[:, :count], logits[:, :count], real[:, :count]
        real = real & batch.label_masks["tags"][:, :count].to(real.device)
        losses = F.cross_entropy(
            logits.transpose(1, 2), target, reduction="none", label_smoothing=self.smoothing
        )
        right = (logits.detach().argmax(-1) == target) & real
        return Loss(losses.masked_fill(~real, 0).sum(), real.sum(), {"correct": right.sum()})

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return `tags`, one for each word or token (None for words of a text that was cut), their
        `scores`, and `entities` with `type`, `start`, `end` and, of words, `text`."""
        logits, real = self._units(batch, ctx)
        scores, best = (value.tolist() for value in logits.softmax(-1).max(-1))
        lengths = self._lengths(batch, real)
        return [
            self._prediction(batch.references[row], best[row][:n], scores[row][:n], kept[:n])
            for row, (n, kept) in enumerate(zip(lengths, real.tolist(), strict=True))
        ]

    def _prediction(
        self,
        reference: Mapping[str, Any],
        best: Sequence[int],
        scores: Sequence[float],
        real: Sequence[bool],
    ) -> dict[str, Any]:
        classes, words = self.labels.classes, reference.get("words")
        tags = [classes[k] if inside else None for k, inside in zip(best, real, strict=True)]
        shares = [score if inside else None for score, inside in zip(scores, real, strict=True)]
        prediction: dict[str, Any] = {"tags": tags, "scores": shares}
        if has_entities(classes):
            marked = entities([OUTSIDE if tag is None else str(tag) for tag in tags])
            prediction["entities"] = [
                entity._asdict()
                | ({"text": " ".join(words[entity.start : entity.end])} if words else {})
                for entity in marked
            ]
        return prediction

    def metrics(self) -> Metrics:
        return TagMetrics(self.labels.classes)

    def example_rows(self) -> list[dict[str, Any]]:
        known = [*self.labels.state()["classes"][:2]] or ["B-x", "O"]
        return [{self.target: known[:1]}, {self.target: [known[-1], known[0], known[-1]]}]

    def _units(self, batch: Batch, ctx: Context) -> tuple[Tensor, Tensor]:
        """Return logits `[B, U, K]` and bool `[B, U]`, the units that the encoder has read. Raise
        RowErrors for rows whose tags are not as many as their units."""
        features = ctx.encode(self.input)
        output = token_output(self, "head", features)
        if "words" not in batch.labels:
            tokens, real = as_sequence(output)
            self._check_counts(batch, real, real)
            return tokens, real
        if ctx.encode(f"{self.input}.encoder").mask.shape != output.mask.shape:
            raise ValueError(
                f"tagging: the connector of {self.input!r} changes the number of tokens; words are "
                "found at the encoder's, take a connector such as linear"
            )
        words, real = batch.labels["words"], batch.label_masks["words"]
        self._check_counts(batch, real, output.mask)
        ends = output.mask.sum(1) - batch.labels["tail"]
        first, behind = words[..., 0], words[..., 1].minimum(ends[:, None])
        return self._pooled(output, first, behind), real.to(behind.device) & (first < behind)

    def _pooled(self, output: Features, first: Tensor, behind: Tensor) -> Tensor:
        """Return the logits `[B, U, K]` of words at `first`, `behind [B, U]`."""
        tokens, limit = output.tokens, max(output.tokens.shape[1] - 1, 0)
        if self.pool == "mean":
            sums = F.pad(tokens.cumsum(1), [0, 0, 1, 0])
            total = _at(sums, behind.clamp(0, limit + 1)) - _at(sums, first.clamp(0, limit + 1))
            return total / (behind - first).clamp(min=1)[..., None]
        place = first if self.pool == "first" else behind - 1
        return _at(tokens, place.clamp(0, limit))

    def _check_counts(self, batch: Batch, units: Tensor, like: Tensor) -> None:
        if "tags" not in batch.label_masks or like.is_meta:
            return
        kind = "words" if "words" in batch.labels else "tokens"
        pairs = zip(batch.label_masks["tags"].sum(1).tolist(), units.sum(1).tolist(), strict=True)
        reasons = {
            row: f"the column {self.target!r} has {tags} tags, its {self.input} {count} {kind}; "
            "give each one tag"
            for row, (tags, count) in enumerate(pairs)
            if tags != count
        }
        if reasons:
            raise RowErrors(reasons, len(batch))

    def _lengths(self, batch: Batch, real: Tensor) -> list[int]:
        """Return the number of units of each row, those that were cut among them."""
        masks = batch.label_masks
        return masks.get("words", real).sum(1).tolist()


def _at(tokens: Tensor, place: Tensor) -> Tensor:
    """Return the tokens `[B, U, K]` at `place [B, U]`."""
    return tokens.gather(1, place[..., None].expand(-1, -1, tokens.shape[-1]))
