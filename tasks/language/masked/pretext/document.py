"""Terms on the vector of a document by what is known of it: its category and its place in a tree.

Saxena et al. 2023 (FPDM): the encoder reads the vectors of a document's sentences as tokens
(`items`) while it learns, and tokens afterwards.

Legend: `B` rows, `D` width, `N` predictions.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .....modalities.base import PositiveFloat
from .....modalities.messages import did_you_mean
from ....base import Row, Tools
from .base import Encoded, Losses, Pretext


class Triplet(Pretext):
    """`max(0, d(a, p) - d(a, n) + margin)`: of each text the farthest one of its category in the
    batch, and the nearest one of another; d is one minus the cosine. A text that lacks either has
    no loss. column: of the category."""

    def __init__(self, *, column: str, margin: PositiveFloat = 0.3) -> None:
        super().__init__()
        self.column, self.margin = column, margin

    def build(self, dim: int) -> None:
        """There are no parameters."""

    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> dict[str, Tensor]:
        return {"category": torch.tensor([zlib.crc32(str(row[self.column]).encode())])}

    def losses(self, encoded: Encoded) -> Losses:
        labels = encoded.labels[f"{self.name}.category"][0][:, 0]
        values, usable = triplets(encoded.vector, labels, self.margin)
        rows = usable.nonzero()[:, 0] if not usable.is_meta else torch.arange(len(usable))
        return Losses(values[rows.to(values.device)], rows)


def triplets(vectors: Tensor, labels: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Return the hinge `[B]` of each vector `[B, D]`, and whether it has both partners."""
    vectors = F.normalize(vectors.float(), dim=-1)
    distance = 1 - vectors @ vectors.T
    same = labels[:, None] == labels
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive = distance.masked_fill(~(same & others), -1.0).amax(1)
    negative = distance.masked_fill(same, 3.0).amin(1)
    usable = (same & others).any(1) & (~same).any(1)
    return (positive - negative + margin).clamp(min=0), usable


class Hierarchy(Pretext):
    """The node of a document at each level of a tree. column: its path, `news/sport`. paths: all
    that occur. The cross-entropy of a level is over the nodes of that level; a path that ends
    earlier has none below."""

    def __init__(self, *, column: str, paths: list[str]) -> None:
        super().__init__()
        if len(paths) < 2 or len(set(paths)) < len(paths):
            raise ValueError(f"paths: found {', '.join(paths)}, expected two different or more")
        self.column, self.paths = column, list(paths)
        depth = max(len(path.split("/")) for path in paths)
        self.levels = [
            sorted({"/".join(p.split("/")[: k + 1]) for p in paths if len(p.split("/")) > k})
            for k in range(depth)
        ]

    def build(self, dim: int) -> None:
        self.heads = nn.ModuleList(nn.Linear(dim, len(nodes)) for nodes in self.levels)

    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def example(self) -> dict[str, Any]:
        return {self.column: self.paths[0]}

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> dict[str, Tensor]:
        path = row[self.column]
        if path not in self.paths:
            raise ValueError(
                f"{self.column}: found {path!r}, which paths does not list"
                f"{did_you_mean(str(path), self.paths)}"
            )
        parts = path.split("/")
        numbers = [
            self.levels[k].index("/".join(parts[: k + 1])) if k < len(parts) else -1
            for k in range(len(self.levels))
        ]
        return {"nodes": torch.tensor(numbers)}

    def losses(self, encoded: Encoded) -> Losses:
        labels = encoded.labels[f"{self.name}.nodes"][0]
        rows = torch.arange(len(labels), device=labels.device)
        parts: list[Losses] = []
        for k, head in enumerate(self.heads):
            present = labels[:, k] >= 0
            values = F.cross_entropy(
                head(encoded.vector).float(), labels[:, k].clamp(min=0), reduction="none"
            )
            parts.append(Losses((values * present), rows))
        return Losses(torch.cat([p.values for p in parts]), torch.cat([p.rows for p in parts]))

    def measures(self, encoded: Encoded) -> dict[str, Tensor]:
        labels = encoded.labels[f"{self.name}.nodes"][0]
        hits = [
            (head(encoded.vector).argmax(-1) == labels[:, k]).float()
            for k, head in enumerate(self.heads)
        ]
        return {f"{self.name}_accuracy": torch.stack(hits, 1).mean(1)}
