"""The contract of a term: a loss beside the decoder's likelihood, with a weight and a name of its
own in the log.

Legend: `B` rows, `P` tokens of the longest text, `S` of the longest source, `L` of the longest
target, `D` width, `N` predictions.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from ....backbones.base import Backbone
from ....modalities.base import Features, Tokenizer
from ...base import Batch, Row
from ..masked import TextIds, sample
from ..masked.pretext import Losses
from ..objectives import Markers
from ..sections import read_weighted


class TermInputs:
    """What a term reads of a batch. Each encoding is computed once, whichever terms ask for it.

    text: the whole texts. source, target: ids of the objective that was drawn, with their masks.
    labels: what `Term.prepare` made, collated, with masks. generator: of the draws, on the CPU;
    None in an evaluation, where they depend on the texts alone.
    """

    def __init__(
        self,
        decoder: Backbone,
        text: TextIds,
        source: tuple[Tensor, Tensor],
        target: tuple[Tensor, Tensor],
        labels: Mapping[str, tuple[Tensor, Tensor]],
        generator: torch.Generator | None,
    ) -> None:
        self.decoder, self.text, self.labels, self.generator = decoder, text, labels, generator
        self.source, self.target = source, target

    @classmethod
    def of(
        cls,
        batch: Batch,
        decoder: Backbone,
        marker_ids: Tensor,
        generator: torch.Generator | None,
    ) -> Self:
        """Return those of a batch of language modelling, with `text` among its labels."""
        labels = {
            key: (Markers.resolve(ids, marker_ids), batch.label_masks[key].to(ids.device))
            for key, ids in batch.labels.items()
            if key in batch.label_masks
        }
        ids, mask = labels["text"]
        text = TextIds(ids, mask, ~mask | (ids == decoder.tokenizer.eos_id))
        return cls(decoder, text, labels["source"], labels["target"], labels, generator)

    def encode(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """Return the encoder's states `[B, P, D]` of embeddings `[B, P, D]`."""
        states = self.decoder(embeds, mask, attention="bidirectional")
        assert isinstance(states, Tensor)
        return states

    def vectors(self, text: TextIds) -> Tensor:
        """Return the mean of a text's states `[B, D]`, of length 1."""
        states = self.encode(self.decoder.embed(text.ids), text.mask)
        mean = (states * text.mask[..., None]).sum(1) / text.mask.sum(1, keepdim=True).clamp(min=1)
        return nn.functional.normalize(mean.float(), dim=-1)

    @functools.cached_property
    def text_vectors(self) -> Tensor:
        return self.vectors(self.text)

    @functools.cached_property
    def context(self) -> Features:
        ids, mask = self.source
        return Features(self.decoder.embed(ids), mask)

    @functools.cached_property
    def sampled(self) -> Tensor:
        """`[B, L]`, the target with each token drawn from the decoder's own prediction, without a
        graph; in an evaluation its most probable token."""
        (ids, mask), context = self.target, self.context  # cached with its graph
        with torch.no_grad():
            logits = self.decoder.logits(self.decoder.teacher_force(context, ids, mask))
            if self.generator is None or ids.is_meta:
                drawn = logits.argmax(-1)
            else:
                draws = torch.rand(ids.numel(), generator=self.generator)
                drawn = sample(logits.flatten(0, 1), draws).view_as(ids)
        return torch.where(mask, drawn, ids)

    @functools.cached_property
    def reread(self) -> Tensor:
        """`[B, L + 1, D]`, the decoder's states behind the source and the sampled tokens: state i
        has read those before token i."""
        mask = nn.functional.pad(self.target[1], (0, 1))
        ids = nn.functional.pad(self.sampled, (0, 1))
        return self.decoder.teacher_force(self.context, ids, mask)


class Term(nn.Module):
    """Base class of terms; what it creates in `build` is part of the task alone. name: in the log,
    and before its labels, `NAME.KEY`."""

    name = ""

    def build(self, decoder: Backbone) -> None:
        """Create the modules for a decoder."""

    def columns(self) -> tuple[str, ...]:
        return ()

    def prepare(self, row: Row, tokenizer: Tokenizer) -> dict[str, Tensor]:
        """Return further labels `[L]` of a row, by name."""
        return {}

    def losses(self, inputs: TermInputs) -> Losses:
        raise NotImplementedError

    def measures(self, inputs: TermInputs) -> dict[str, Tensor]:
        """Return further numbers `[B]` for an evaluation, by name."""
        return {}


class Terms(nn.Module):
    """The terms of a task, from the sections of a recipe: `[{type: contrast, weight: 0.1}]`."""

    def __init__(self, sections: Sequence[Mapping[str, Any]], catalogue: Mapping[str, str]) -> None:
        super().__init__()
        parts = read_weighted("terms", sections, catalogue, Term)
        self.weights = {name: weight for name, weight, _ in parts}
        self.parts = nn.ModuleDict({name: part for name, _, part in parts})
        for name, _, part in parts:
            part.name = name

    def __bool__(self) -> bool:
        return bool(self.weights)

    @property
    def active(self) -> dict[str, Term]:
        """The terms whose weight is above 0."""
        return {n: cast(Term, part) for n, part in self.parts.items() if self.weights[n]}

    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c for part in self.active.values() for c in part.columns()))

    def build(self, decoder: Backbone) -> None:
        if self and not decoder.encodes_context:
            raise ValueError(
                f"terms: {next(iter(self.weights))} reads the encoder of an encoder-decoder; take "
                "`type: seq2seq` in backbone"
            )
        for part in self.parts.values():
            cast(Term, part).build(decoder)

    def prepare(self, row: Row, ids: list[int], tokenizer: Tokenizer) -> dict[str, Tensor]:
        """Return the labels of a row: `text`, all of it, and those of each term, `NAME.KEY`."""
        if not self.active:
            return {}
        labels = {"text": torch.tensor([*ids, tokenizer.eos_id])}
        for name, part in self.active.items():
            made = part.prepare(row, tokenizer)
            labels |= {f"{name}.{key}": value for key, value in made.items()}
        return labels

    def means(self, inputs: TermInputs) -> dict[str, Tensor]:
        """Return the mean loss of each term, before its weight."""
        return {name: part.losses(inputs).mean() for name, part in self.active.items()}

    def score(self, inputs: TermInputs, rows: Sequence[dict[str, Any]]) -> None:
        """Add `terms` and `measures` to the predictions of rows."""
        for name, part in self.active.items():
            sums = part.losses(inputs).sums(len(rows))
            for row, (nll, count) in zip(rows, sums, strict=True):
                row.setdefault("terms", {})[name] = {"nll": nll, "tokens": count}
            for key, values in part.measures(inputs).items():
                for row, value in zip(rows, values.tolist(), strict=True):
                    row.setdefault("measures", {})[key] = value
