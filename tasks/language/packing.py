"""Packing: the texts of a batch in few rows, each with the hidden states that it has alone.

Legend: `B` texts, `S` and `L` tokens of the longest source and target, `R` rows, `N` positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ...backbones.base import Backbone
from ...backbones.visibility import Visibility


@dataclass(frozen=True)
class PackedRows:
    """Where the tokens of pairs of source and target lie in packed rows.

    index: `[R, N]`, the place of each position's token among the `B * (S + L)` of source and
    target. document: `[R, N]`, the number of its text, from 1; 0 for padding. predictors: places
    among the `R * N` positions whose hidden states predict the target tokens, text after text. All
    are on the CPU.
    """

    index: Tensor
    document: Tensor
    predictors: Tensor

    @classmethod
    def of(cls, source_mask: Tensor, target_mask: Tensor, length: int) -> Self:
        """Pack texts into rows of `length` positions, a longer text into one alone. The last token
        of a target predicts nothing and is left out. Masks are `[B, S]` and `[B, L]`, bool."""
        masks = torch.cat([source_mask, target_mask], 1)
        places = [row.nonzero().squeeze(1)[:-1] + i * len(row) for i, row in enumerate(masks)]
        sources = source_mask.sum(1).tolist()
        rows = first_fit([len(place) for place in places], length)
        width = max(sum(len(places[text]) for text in row) for row in rows)
        index = torch.zeros(len(rows), width, dtype=torch.long)
        document = torch.zeros_like(index)
        predictors: list[Tensor] = [torch.empty(0)] * len(places)
        for number, row in enumerate(rows):
            start = 0
            for text in row:
                stop = start + len(places[text])
                index[number, start:stop] = places[text]
                document[number, start:stop] = text + 1
                first = number * width + start + sources[text] - 1
                predictors[text] = torch.arange(first, number * width + stop)
                start = stop
        return cls(index, document, torch.cat(predictors))


def packed_hidden(decoder: Backbone, ids: Tensor, rows: PackedRows) -> Tensor:
    """Return hidden `[R, N, D]` of the packed rows of ids `[B, S + L]`."""
    document = rows.document.to(ids.device)
    embeds = decoder.embed(ids.flatten()[rows.index.to(ids.device)])
    hidden: Tensor = decoder(embeds, document > 0, attention=Visibility.documents(document))
    return hidden


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return rows of indices whose lengths sum to `capacity` at most, by first-fit decreasing; what
    is longer has a row of its own."""
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = (row for row, rest in enumerate(room) if rest >= lengths[i])
        row = next(fits, len(rows))
        if row == len(rows):
            rows.append([])
            room.append(capacity)
        rows[row].append(i)
        room[row] -= lengths[i]
    return rows
