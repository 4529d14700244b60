"""A second set of weights for the positions of another modality in a language model's layers.

Every linear map and norm of the layers exists twice, and the position decides which one it goes
through; attention is joint (Mixture-of-Transformers, Liang et al., 2024; LLaMo, 2026). The second
set is stored as a difference that begins at zero, so it starts as the first one, whatever weights
are loaded; positions of text go through the first one alone, bit by bit.

Legend: `B` rows, `T` positions.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ...backbones.base import Backbone


class ModalityWeights(nn.Module):
    """Adds the second set to the layers of a decoder. Raise ValueError for one whose layers are
    not known."""

    def __init__(self, decoder: Backbone) -> None:
        super().__init__()
        self.mask: Tensor | None = None
        blocks = decoder.blocks()
        if not blocks:
            raise ValueError(
                f"modality_weights: the layers of {type(decoder).__name__} are unknown"
            )
        leaves = [
            m for b in blocks for m in b.modules() if next(m.parameters(False), None) is not None
        ]
        self.differences = nn.ModuleList()
        for index, leaf in enumerate(leaves):
            zeros = {n: torch.zeros_like(p) for n, p in leaf.named_parameters(recurse=False)}
            self.differences.append(nn.ParameterDict(zeros))
            leaf.register_forward_hook(functools.partial(self._hook, index))

    @contextlib.contextmanager
    def at(self, mask: Tensor | None) -> Iterator[None]:
        """Let the positions of mask `[B, T]` go through the second set within the block."""
        self.mask = mask
        try:
            yield
        finally:
            self.mask = None

    def _hook(self, index: int, leaf: nn.Module, args: Any, output: Tensor) -> Tensor:
        mask = self.mask
        if mask is None:
            return output
        differences: Any = self.differences[index]
        weights = {n: p + differences[n] for n, p in leaf.named_parameters(recurse=False)}
        self.mask = None  # the second call runs the hooks of the module again
        second: Tensor = functional_call(leaf, weights, args)
        self.mask = mask
        return torch.where(mask[..., None], second, output)
