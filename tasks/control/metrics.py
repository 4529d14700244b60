"""Errors of predicted chunks, in the robot's units.

Legend: `N` samples inside their episodes, `dof` numbers of an action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from ...modalities.action.tokenizers import ActionTokenizer
from .decoders import chunks_of_references


@runtime_checkable
class _Bounded(Protocol):
    """A tokenizer with bounds: `clipped` returns the fraction of chunks outside them, for each
    joint."""

    def clipped(self, chunks: Tensor, *, padding: Tensor | None = None) -> list[float]: ...


class ActionMetrics:
    """l1, mse: mean over samples and joints; l1_gripper and l1_joints if the tokenizer has
    grippers. token_accuracy, if ids are generated. decodable: fraction of chunks whose tokens could
    be decoded. clipped: fraction of the recorded actions outside the tokenizer's bounds, if it has
    some. jerk: mean square of the third difference, with a step as the unit of time; jerk_data:
    that of the recorded actions."""

    def __init__(self, tokenizer: ActionTokenizer) -> None:
        self.tokenizer = tokenizer
        self.errors: list[np.ndarray] = []
        self.jerks: list[tuple[float, float]] = []
        self.tokens: list[tuple[int, int]] = []
        self.decodable: list[bool] = []
        self.clipped: list[float] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        """Add rows. Raise ValueError if a reference has no actions."""
        if any("actions" not in reference for reference in references):
            raise ValueError("action metrics: a row has no actions; evaluate on data that has them")
        pairs = list(zip(predictions, references, strict=True))
        for prediction, reference in pairs:
            real = ~np.asarray(reference["padding"], bool)
            actions = np.asarray(prediction["actions"], float)[real]
            target = np.asarray(reference["actions"], float)[real]
            self.errors.append(actions - target)
            if len(actions) > 3:
                self.jerks.append((_jerk(actions), _jerk(target)))
            self.decodable.append(not prediction.get("undecodable", False))
        if isinstance(self.tokenizer, _Bounded):
            chunk = chunks_of_references(references)
            share = self.tokenizer.clipped(chunk.actions, padding=chunk.padding)
            self.clipped += [float(np.mean(share))] * len(references)
        with_tokens = [(p["tokens"], r) for p, r in pairs if "tokens" in p]
        if with_tokens:
            chunk = chunks_of_references([reference for _, reference in with_tokens])
            ids = self.tokenizer.encode(chunk.actions, padding=chunk.padding, start=chunk.start)
            for (tokens, _), target_ids in zip(with_tokens, ids, strict=True):
                self._count(tokens, target_ids.tolist())

    def _count(self, tokens: Sequence[int], target: Sequence[int]) -> None:
        correct = sum(a == b for a, b in zip(tokens, target, strict=False))
        self.tokens.append((correct, max(len(tokens), len(target))))

    def compute(self) -> dict[str, float]:
        if not self.errors:
            raise ValueError("action metrics: no row was accumulated; is the split empty?")
        error = np.concatenate(self.errors)  # [N, dof]
        values = {"l1": float(np.abs(error).mean()), "mse": float(np.square(error).mean())}
        values |= self._kinds(np.abs(error).mean(0))
        if self.tokens:
            right, total = np.sum(self.tokens, axis=0)
            values["token_accuracy"] = float(right / total)
        values["decodable"] = float(np.mean(self.decodable))
        if self.clipped:
            values["clipped"] = float(np.mean(self.clipped))
        if self.jerks:
            jerk, jerk_data = np.mean(self.jerks, axis=0)
            values |= {"jerk": float(jerk), "jerk_data": float(jerk_data)}
        return values

    def _kinds(self, each: np.ndarray) -> dict[str, float]:
        """Return the mean errors of grippers and of other joints, from each joint's `[dof]`."""
        indices: list[int] = getattr(self.tokenizer, "grippers", None) or []
        grippers = np.zeros(len(each), bool)
        grippers[indices] = True
        if grippers.all() or not grippers.any():
            return {}
        return {
            "l1_gripper": float(each[grippers].mean()),
            "l1_joints": float(each[~grippers].mean()),
        }


def _jerk(actions: np.ndarray) -> float:
    return float(np.square(np.diff(actions, 3, axis=0)).mean())
