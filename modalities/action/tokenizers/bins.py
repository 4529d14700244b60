"""One token for each joint and step: the bins of RT-2 and OpenVLA (arXiv 2307.15818, 2406.09246).

Actions are scaled so that their 1 % and 99 % quantiles are the ends of `vocab` equal bins, and are
decoded to the bins' centres.

Legend: `B` chunks, `L = steps * dof` tokens, step by step (token `t * dof + d`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ...base import PositiveInt
from . import validation
from .base import ActionTokenizer
from .quantiles import Reservoir, bounds
from .step_bounds import Bounds, check_no_start, finite

KEPT = 1_000_000
"""Samples from which the quantiles are computed."""


class BinTokenizer(ActionTokenizer):
    """dof: numbers of an action; None: inferred. vocab: bins. quantiles: their outer ends."""

    def __init__(
        self,
        *,
        dof: PositiveInt | None = None,
        vocab: PositiveInt = 256,
        quantiles: tuple[float, float] = (0.01, 0.99),
    ) -> None:
        self.dof = validation.joints(dof)
        self.vocab = self.size = validation.vocabulary(vocab)
        self.quantiles = validation.quantiles(quantiles)
        self._bounds: Bounds | None = None

    def length(self, steps: int) -> int:
        """Return `steps * dof`."""
        return steps * validation.require_fitted(self.dof)

    def fit(self, rows: Iterable[Any]) -> None:
        """Fit the quantiles of each joint's samples, without padded ones."""
        samples = Reservoir(KEPT)
        for values, real in validation.iter_blocks(rows, self.dof):
            samples.add(values[real])
        low, high = bounds(samples.rows(), self.quantiles)
        self.load_state({"low": low, "high": high})

    def encode(
        self, chunks: Tensor, *, padding: Tensor | None = None, start: Tensor | None = None
    ) -> Tensor:
        """Return ids `[B, steps * dof]` of `[B, steps, dof]`; values outside fall into an outer
        bin."""
        check_no_start(start)
        within = self._require_bounds().shrink(finite(chunks, self.dof, padding))
        ids = ((within / 2 + 0.5) * self.vocab).floor().clamp(0, self.vocab - 1)
        return ids.flatten(1).long()

    def decode(
        self, ids: Tensor | list[Tensor], *, steps: int, start: Tensor | None = None
    ) -> Tensor:
        """Return the bins' centres `[B, steps, dof]` of ids `[B, steps * dof]`."""
        check_no_start(start)
        bounds = self._require_bounds()
        dof = validation.require_fitted(self.dof)
        checked = validation.ids(ids, steps * dof, self.size, (steps, dof))
        centres = (checked.float() + 0.5) / self.vocab * 2 - 1
        return bounds.stretch(centres.unflatten(1, (steps, dof)))

    def state(self) -> dict[str, Any]:
        """Return `low`, `high [dof]`."""
        bounds = self._require_bounds()
        return {"low": bounds.low, "high": bounds.high}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._bounds = Bounds.of_state(state, self.dof)
        self.dof = len(state["low"])

    def _require_bounds(self) -> Bounds:
        if self._bounds is None:
            raise ValueError("action tokenizer: used before fit; fit it, or load a saved one")
        return self._bounds
