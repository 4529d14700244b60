"""What stands in front of a text: other streams, regions of a picture, vectors of sentences.

Regions: Li et al. 2019 (Unicoder-VL): the features inside each box, and an embedding of the box.

Legend: `B` rows, `P` docked positions, `R` regions of a row, `T` tokens of a picture, `E` width of
an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from ....modalities.base import Features
from ...base import Context, Row
from ...batch import Batch
from ...uses import StreamUse


@dataclass(frozen=True)
class Docked:
    """Streams in front of the text: embeddings `[B, P, E]` and mask `[B, P]`. places: `[B, P, E]`,
    the part of the embeddings that says where something stands, which stays when it is hidden."""

    embeds: Tensor
    mask: Tensor
    places: Tensor

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return all parts, one behind the other."""
        names = ("embeds", "mask", "places")
        return cls(*(torch.cat([getattr(part, name) for part in parts], 1) for name in names))

    def hiding(self, chosen: Tensor) -> Self:
        """Return the same with `chosen [B, P]` reduced to their places."""
        return replace(self, embeds=torch.where(chosen[..., None], self.places, self.embeds))

    def select(self, rows: Tensor) -> Self:
        return replace(
            self, embeds=self.embeds[rows], mask=self.mask[rows], places=self.places[rows]
        )


class Docking(nn.Module):
    """before: streams whose tokens are docked. items: streams whose cells are lists, each item one
    vector. regions: `{image: boxes}`, streams of `before` that are read by the boxes of a column:
    a list of `[x1, y1, x2, y2]` a row, as fractions of the picture that the encoder sees."""

    def __init__(
        self, before: Sequence[str], items: Sequence[str], regions: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.before, self.items, self.regions = tuple(before), tuple(items), dict(regions)
        for name in self.items:
            if name in self.before:
                raise ValueError(f"items: names {name!r}, which before names too")
        for name in self.regions:
            if name not in self.before:
                raise ValueError(f"regions: names {name!r}, which before does not")
        self.boxes = nn.ModuleDict()

    def __bool__(self) -> bool:
        return bool(self.before or self.items)

    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.regions.values()))

    def streams(self, text: str) -> dict[str, StreamUse]:
        uses = {name: StreamUse(width=text) for name in self.before}
        return uses | {name: StreamUse(width=text, many=True) for name in self.items}

    def build(self, dim: int) -> None:
        """Create the embedding of a box: corners and area, `[5]` -> `[dim]`."""
        for name in self.regions:
            self.boxes[name] = nn.Linear(5, dim)

    def prepare(self, row: Row) -> dict[str, Tensor]:
        """Return `boxes.STREAM [R, 4]`. Raise ValueError for a box that is none."""
        labels: dict[str, Tensor] = {}
        for stream, column in self.regions.items():
            if column in row:
                labels[f"boxes.{stream}"] = _boxes(column, row[column])
        return labels

    def dock(self, batch: Batch, ctx: Context) -> Docked | None:
        parts = [self._stream(name, batch, ctx) for name in self.before]
        parts += [self._items(name, batch, ctx) for name in self.items]
        return Docked.join(parts) if parts else None

    def _stream(self, name: str, batch: Batch, ctx: Context) -> Docked:
        features = ctx.encode(name)
        tokens = features.tokens.masked_fill(~features.mask[..., None], 0)
        if name not in self.regions:
            return Docked(tokens, features.mask, torch.zeros_like(tokens))
        boxes = batch.label(f"boxes.{name}", f"has no {self.regions[name]}").to(tokens.device)
        mask = batch.label_masks[f"boxes.{name}"].to(tokens.device)
        area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
        places = self.boxes[name](torch.cat([boxes, area[..., None]], -1).to(tokens.dtype))
        places = places * mask[..., None]
        return Docked(region_features(features, boxes) * mask[..., None] + places, mask, places)

    def _items(self, name: str, batch: Batch, ctx: Context) -> Docked:
        features, counts = ctx.encode(name), batch.items[name]
        lengths = features.mask.sum(1, keepdim=True).clamp(min=1)
        mean = features.tokens.masked_fill(~features.mask[..., None], 0).sum(1) / lengths
        vectors = mean if features.pooled is None else features.pooled
        rows = vectors.split(counts.tolist())
        tokens = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        mask = (torch.arange(tokens.shape[1]) < counts[:, None]).to(tokens.device)
        return Docked(tokens, mask, torch.zeros_like(tokens))


def region_features(features: Features, boxes: Tensor) -> Tensor:
    """Return `[B, R, E]`: the mean of a picture's tokens over each box `[B, R, 4]`, weighted by how
    much of a token's cell lies in it. Raise ValueError without a grid of rows and columns."""
    if features.grid is None or len(features.grid) != 2:
        raise ValueError(
            f"regions: the encoder's tokens have the grid {features.grid}, expected rows and "
            "columns of a picture"
        )
    height, width = features.grid
    across = _overlap(boxes[..., 0], boxes[..., 2], width)
    down = _overlap(boxes[..., 1], boxes[..., 3], height)
    weights = (down[..., :, None] * across[..., None, :]).flatten(-2)  # [B, R, T]
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-6)
    return weights.to(features.tokens.dtype) @ features.tokens


def _overlap(start: Tensor, stop: Tensor, count: int) -> Tensor:
    """Return `[..., count]`, how much of each of `count` equal cells of 0 to 1 lies in a range."""
    edges = torch.arange(count + 1, device=start.device) / count
    first = torch.maximum(start[..., None], edges[:-1])
    return (torch.minimum(stop[..., None], edges[1:]) - first).clamp(min=0)


def _boxes(column: str, cell: Any) -> Tensor:
    boxes = torch.tensor(cell, dtype=torch.float32) if cell else torch.zeros(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{column}: found {cell!r}, expected a list of [x1, y1, x2, y2]")
    low, high = boxes[:, :2], boxes[:, 2:]
    if not bool(((low >= 0) & (low < high) & (high <= 1)).all()):
        raise ValueError(
            f"{column}: found {cell!r}, expected fractions of the picture with x1 < x2 and y1 < y2"
        )
    return boxes
