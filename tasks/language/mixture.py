"""Objectives by their weights: one is drawn for a text, which becomes a source and a target."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ...backbones.base import Backbone, GenerationOptions, check_generation_options
from ...backbones.visibility import Attention
from ...modalities.base import Features, Tokenizer
from ...modalities.messages import did_you_mean
from ..base import Batch
from .objectives import OBJECTIVES, Markers, Noise


class Mixture:
    """weights: of the objectives, by name. noise: with the tokenizer of the text. encodes_source:
    whether an encoder reads it."""

    def __init__(
        self, weights: Mapping[str, float], noise: Noise, encodes_source: bool = False
    ) -> None:
        self.weights, self.noise, self.encodes_source = weights, noise, encodes_source

    def draw(self, rng: np.random.Generator | None) -> str:
        """Return an objective by the weights; without `rng` the first one."""
        names, weights = list(self.weights), np.array(list(self.weights.values()))
        if rng is None or len(names) == 1:
            return names[0]
        return names[int(rng.choice(len(names), p=weights / weights.sum()))]

    def pair(self, name: str, ids: list[int], rng: np.random.Generator | None) -> dict[str, Tensor]:
        """Return source and target by an objective, with the tokens at their ends: a causal row
        begins with `bos` (`eos` without one), an encoder's text and every target end with `eos`.
        Without `rng` the draws depend on the ids alone."""
        tokenizer = self.noise.tokenizer
        assert tokenizer is not None
        if rng is None:
            rng = np.random.default_rng(zlib.crc32(np.array(ids).tobytes()))
        source, target = OBJECTIVES[name].corrupt(ids, self.noise, rng)
        start, end = tokenizer.bos_id, tokenizer.eos_id
        first = [end if start is None else start]
        source = [*source, end] if self.encodes_source else [*first, *source]
        return {"source": torch.tensor(source), "target": torch.tensor([*target, end])}

    def read(
        self, name: str, source: Sequence[int], target: Sequence[int], markers: Sequence[int]
    ) -> str:
        """Return the text of a source of `pair` and a target that a decoder wrote, in which
        `markers`, the ids of the special tokens, stand for them."""
        tokenizer = self.noise.tokenizer
        assert tokenizer is not None
        end = tokenizer.eos_id
        target = target[: target.index(end)] if end in target else target
        numbers = {number: -1 - k for k, number in enumerate(markers)}
        written = [numbers.get(i, i) for i in target if i != tokenizer.pad_id]
        around = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id}
        kept = [i for i in source if i not in around]
        ids = OBJECTIVES[name].restore(kept, written, self.noise)
        return tokenizer.decode([i for i in ids if i >= 0])

    def write(
        self,
        batch: Batch,
        decoder: Backbone,
        attention: Attention,
        marker_ids: Tensor,
        options: GenerationOptions,
    ) -> list[str]:
        """Return the texts that the sources of the first objective make with the targets that a
        decoder writes."""
        check_generation_options(options)
        name = next(iter(self.weights))
        labels, masks = batch.labels[f"source.{name}"], batch.label_masks[f"source.{name}"]
        source = Markers.resolve(labels, marker_ids)
        context = Features(decoder.embed(source), masks.to(source.device))
        limit = int(batch.label_masks[f"target.{name}"].sum(1).max()) + 8
        ids = decoder.generate(context, attention, **{"max_new_tokens": limit, **options})
        markers = marker_ids.tolist()
        return [
            self.read(name, row[mask].tolist(), written.tolist(), markers)
            for row, mask, written in zip(labels.cpu(), masks, ids, strict=True)
        ]


def check_weights(objectives: Mapping[str, float]) -> None:
    """Raise ValueError for an unknown objective, or a weight that is not above 0."""
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


def check_limits(*, max_length: int | None, mean_span: float, sentinels: int) -> None:
    """Raise ValueError for an option below its least value."""
    longest = 1 if max_length is None else max_length
    limits = {"max_length": (longest, 1), "mean_span": (mean_span, 1), "sentinels": (sentinels, 2)}
    for option, (value, least) in limits.items():
        if value < least:
            raise ValueError(f"{option}: found {value}, expected at least {least}")


def last_word_tokens(text: str, ids: list[int], tokenizer: Tokenizer) -> int:
    """Return the number of tokens of the last word; 0 if there is no word before it."""
    words = text.rsplit(maxsplit=1)
    if len(words) < 2:
        return 0
    before = tokenizer.encode(words[0])
    shared = next((k for k, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), None)
    return len(ids) - (min(len(before), len(ids)) if shared is None else shared)
