"""Rare abilities of tasks, which the engine looks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from .batch import Batch


@runtime_checkable
class Baselines(Protocol):
    """A task whose evaluation also scores the model before its training, and a model that knows
    only how often each token occurs."""

    untrained_metrics: ClassVar[tuple[str, ...]]
    """The metrics that are compared, `untrained_NAME`."""

    def unigram_metrics(
        self, training: Iterable[Batch], held_out: Iterable[Batch]
    ) -> dict[str, float]:
        """Return metrics, `unigram_NAME`, of the frequencies of tokens in the training split."""
        ...


@runtime_checkable
class ExportsMaps(Protocol):
    """A task whose predictions hold maps, written by `generate --out FOLDER` as files."""

    def export_maps(self, prediction: Any) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Return values on a grid, and the matrix from there to the world of the first stream,
        by name."""
        ...
