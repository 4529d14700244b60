"""Action tokenizers: chunks of actions <-> ids of a small vocabulary, fitted on the training split.

Legend: `B` chunks, `steps` samples of a chunk, `dof` numbers of an action, `L` tokens of a chunk.
A chunk is `[steps, dof]` in the robot's own units; its padding is `[steps]` bool, True where a
sample lies outside the episode.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ...signal_tokens import SignalTokenizer


class ActionTokenizer(SignalTokenizer):
    """The interface of action tokenizers: a signal is a chunk of actions.

    dof: numbers of an action; None until `fit`, unless it is an option. size: ids lie in `[0,
    size)`. fixed_start: sample 0 of a chunk is the action executed last, which has no token:
    `decode` needs it as `start`, and execution begins at sample 1. A constructor keeps its
    arguments as attributes of the same names.
    """

    kind = "action_tokenizer"

    dof: int | None
    size: int
    fixed_start: bool = False

    @abstractmethod
    def length(self, steps: int) -> int | None:
        """Return the tokens of a chunk of `steps` samples; None if it varies between chunks.

        Raise ValueError if `steps` cannot be encoded, or before `dof` is known.
        """

    @abstractmethod
    def fit(self, rows: Iterable[Any]) -> None:
        """Fit chunks: an array `[B, steps, dof]`, or an iterable, read once, of chunks `[steps,
        dof]` or pairs `(chunk, padding)`. Raise ValueError for a value that is not finite."""

    @abstractmethod
    def encode(
        self, chunks: Tensor, *, padding: Tensor | None = None, start: Tensor | None = None
    ) -> Tensor | list[Tensor]:
        """Return ids `[B, L]` long of chunks `[B, steps, dof]`; a list of `[L_i]` if `length` is
        None.

        start: `[B, dof]` the action executed last, with `fixed_start`; by default the chunks'
        first. Raise ValueError for values that are not finite, and for another dof than fitted.
        """

    @abstractmethod
    def decode(
        self, ids: Tensor | list[Tensor], *, steps: int, start: Tensor | None = None
    ) -> Tensor:
        """Return `[B, steps, dof]` float32 of ids. Raise ValueError for ids out of range."""

    def outlines(self, actions: np.ndarray) -> Sequence[Outline | None]:
        """Return the curve, knots and control points of each joint of a decoded `[steps, dof]`,
        None if unknown; empty for a tokenizer without curves."""
        return ()


class Outline(NamedTuple):
    """Phases in [0, 1] and values: of the curve `[F, 2]`, of its knots `[K, 2]`, and of the
    control points `[N, 2]` at their Greville abscissae (none of a joint that switches)."""

    curve: np.ndarray
    knots: np.ndarray
    points: np.ndarray
