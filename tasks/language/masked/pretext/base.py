"""The contract of a disposable decoder: it reads an encoder's states in training and is not part
of the encoder, whose saved tensors stay the same.

Legend: `B` rows, `L` tokens, `D` width of a state, `E` width of an embedding, `N` predictions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .....modalities.base import Features
from ....base import Row, Tools, VocabularyEncoder
from ...spans import Phrases
from ..docking import Docked
from ..text import TextIds, vector_of


@dataclass(frozen=True)
class Encoded:
    """A text as a disposable decoder sees it.

    text: the original. chosen: `[B, L]`, tokens that were masked. corrupted: the ids that the
    encoder read. features: its states, with the hidden layers that the decoders asked for.
    labels: what `Pretext.prepare` made, collated, with masks. docked: what stands in front.
    generator: for draws, on the CPU.
    """

    encoder: VocabularyEncoder
    text: TextIds
    chosen: Tensor
    corrupted: Tensor
    features: Features
    generator: torch.Generator
    labels: Mapping[str, tuple[Tensor, Tensor]]
    docked: Docked | None = None

    @property
    def vector(self) -> Tensor:
        """`[B, D]`, the text's vector."""
        return vector_of(self.features)


@dataclass(frozen=True)
class Losses:
    """values `[N]`: a loss a prediction. rows `[N]`: its row of the batch."""

    values: Tensor
    rows: Tensor

    def mean(self) -> Tensor:
        return self.values.sum() / max(1, len(self.values))

    def sums(self, count: int) -> list[tuple[float, int]]:
        """Return the sum and the number of the losses of each of `count` rows."""
        zeros = torch.zeros(count, dtype=torch.float32, device=self.values.device)
        sums = zeros.index_add(0, self.rows, self.values.detach().float())
        counts = torch.bincount(self.rows, minlength=count)
        return list(zip(sums.tolist(), counts.tolist(), strict=True))


class Pretext(nn.Module):
    """Base class of disposable decoders.

    name: in the log, and before its labels, `NAME.KEY`. needs_layers: hidden layers of the encoder.
    needs_phrases: it reads `phrases`, statistics of the training texts. needs_docked: it reads what
    stands in front of the text. hides_masks: mask tokens are kept out of the
    encoder, which then reads the others at their own positions.
    """

    name = ""
    phrases: Phrases | None = None
    needs_layers: tuple[int, ...] = ()
    needs_phrases: bool = False
    needs_docked: ClassVar[bool] = False
    hides_masks: ClassVar[bool] = False

    def build(self, dim: int) -> None:
        """Create the modules for an encoder of width `dim`."""
        raise NotImplementedError

    def columns(self) -> tuple[str, ...]:
        return ()

    def example(self) -> dict[str, Any]:
        """Return cells of its columns, by column: for the dry run, docs and tests."""
        return dict.fromkeys(self.columns(), "two small words")

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> dict[str, Tensor]:
        """Return further labels of a row, by name."""
        return {}

    def losses(self, encoded: Encoded) -> Losses:
        """Return the losses of what the decoder predicts."""
        raise NotImplementedError

    def measures(self, encoded: Encoded) -> dict[str, Tensor]:
        """Return further numbers `[B]` for an evaluation, by name; NaN of a row without one."""
        return {}


def token_losses(
    encoder: VocabularyEncoder, hidden: Tensor, ids: Tensor, positions: Tensor
) -> tuple[Losses, Tensor]:
    """Return the cross-entropy of ids `[B, L]` from states `[B, L, D]` at positions `[N]` of the
    flattened rows, by the encoder's own vocabulary, in float32; and the logits `[N, V]`, without a
    graph."""
    logits = encoder.logits(hidden.flatten(0, 1)[positions]).float()  # [N, V]
    labels = ids.flatten()[positions]
    rows = positions // max(1, ids.shape[1])
    losses = Losses(F.cross_entropy(logits, labels, reduction="none"), rows)
    return losses, logits.detach()
