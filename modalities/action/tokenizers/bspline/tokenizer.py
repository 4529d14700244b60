"""Actions as B-spline tokens (BEAST, arXiv 2506.06072).

A joint's `steps` samples become the control points of a clamped uniform B-spline, found by least
squares; a token is one control point between its fitted bounds, in `vocab` bins or as a number
in [-1, 1]. A curve lies in the convex hull of its control points: for any ids, it stays
inside the bounds, and its rounding error is at most half a bin.

Legend: `B` chunks, `N` = num_basis, `L` tokens of a chunk: `N * dof`, basis-major (token
`n * dof + d`), or the joints' sum where their numbers differ. `S` samples to evaluate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from ....base import Chart, Count, NonNegativeFloat, PositiveInt
from .. import validation
from ..base import ActionTokenizer, Outline
from . import fit_error
from . import gripper as gripper_module
from .basis import phases
from .boundary import BoundaryOrder
from .codec import Codec
from .fit_error import JointErrors
from .fitting import Fitting
from .layout import Layout, joints
from .matrices import SplineMatrices
from .outline import outlines


class BSplineTokenizer(ActionTokenizer):
    """Clamped uniform B-splines over a chunk of any length.

    dof: numbers of an action; None: as the data. num_basis: control points, one number or one a
    joint. degree: of the joints' curves. vocab: bins of a token.
    grippers: columns that are steps, not curves (-1: the last). gripper: `degree0`, constant
    pieces as in the paper; `switch_times`, two states and the times between them, of which
    `num_basis` counts the tokens (the first state, then `num_basis - 1` switches): exact for so
    many.
    start_order: 1, a joint's curve begins at the last action executed (`start`), without a token;
    2, with its velocity too (grippers are left out). end_order: the same at the chunk's end.
    quantiles: of the control points, which bound them (the paper has 1 % and 99 %, which clip
    one in fifty). ridge: added to the least squares.
    """

    def __init__(
        self,
        *,
        dof: PositiveInt | None = None,
        num_basis: PositiveInt | list[PositiveInt] = 10,
        degree: Count = 4,
        vocab: PositiveInt = 256,
        grippers: list[int] | None = None,
        gripper: Literal["degree0", "switch_times"] = "switch_times",
        start_order: Literal[0, 1, 2] = 0,
        end_order: Literal[0, 1, 2] = 0,
        quantiles: tuple[float, float] = (0.001, 0.999),
        ridge: NonNegativeFloat = 0.0,
    ) -> None:
        self.num_basis, self.degree = num_basis, degree
        self.vocab = self.size = validation.vocabulary(vocab)
        self.grippers, self.gripper = grippers, gripper
        self.start_order, self.end_order = start_order, end_order
        self.quantiles = validation.quantiles(quantiles)
        self.ridge = validation.at_least_zero("ridge", ridge)
        joint_count = len(num_basis) if dof is None and isinstance(num_basis, list) else dof
        self.dof = validation.joints(joint_count)
        self.fixed_start = start_order > 0
        self._orders = BoundaryOrder(start_order, end_order)
        self._lay(self.dof)

    def _lay(self, dof: int | None) -> None:
        """Lay out the tokens of so many joints; of the fewest there can be while it is None."""
        grippers = self.grippers or []
        fewest = max([column + 1 if column >= 0 else -column for column in grippers], default=1)
        kinds = joints(
            dof or fewest, self.num_basis, self.degree, grippers, self.gripper, self._orders
        )
        self._layout = Layout(kinds)
        self._stack = SplineMatrices(self._layout, self._orders.both, self.ridge)
        self._codec: Codec | None = None
        self._state: dict[str, Any] = {}
        self.dof = dof

    def fit(self, rows: Iterable[Any]) -> None:
        """Learn bounds and errors in one pass: an array `[B, steps, dof]`, or chunks, or pairs
        of a chunk and its padding. Bounds are quantiles of up to 100,000 chunks, drawn evenly;
        grippers' states are those of the first 100,000."""
        fitting: Fitting | None = None
        for values, real in validation.iter_blocks(rows, self.dof):
            if fitting is None:
                self._lay(values.shape[2])
                fitting = Fitting(self._layout, self._stack, self._orders)
            self.length(values.shape[1])
            fitting.add(values, real)
        if fitting is not None:  # blocks refuse to be none
            self.load_state({"dof": self.dof, **fitting.state(self.quantiles)})

    def length(self, steps: int) -> int:
        """Tokens of a chunk; the same for any number of steps that can be encoded."""
        validation.require_fitted(self.dof)
        most = max((curve.num_basis for curve in self._layout.curves), default=1)
        if steps < max(most, 1):
            raise ValueError(
                f"num_basis: {most} bases cannot be found from a chunk of {steps} steps; the "
                f"largest usable number is {steps}"
            )
        longest = gripper_module.longest(self.vocab)
        if self._layout.switches and steps > longest:
            raise ValueError(
                f"vocab: {self.vocab} bins distinguish switches of {longest} steps, found a "
                f"chunk of {steps}; use more bins, or gripper: degree0"
            )
        return self._layout.length

    @property
    def grid(self) -> tuple[int, int] | None:
        """`(N, dof)` where all joints have `N` tokens: tokens `[B, L]` are `[B, N, dof]`, flat."""
        validation.require_fitted(self.dof)
        return self._layout.grid

    def encode(
        self,
        chunks: Tensor,
        *,
        padding: Tensor | None = None,
        start: Tensor | None = None,
        end: Tensor | None = None,
    ) -> Tensor:
        """`[B, steps, dof]` -> ids `[B, L]`. Padded samples are ignored.

        start, end: `[B, dof]` for order 1, `[B, 2, dof]` with the velocity in units a chunk for
        order 2; where they are not given, the chunks' own ends.
        """
        z = self._encode(chunks, padding, start, end)
        return z.mul_(self.vocab - 1).round_().long()

    def encode_continuous(
        self,
        chunks: Tensor,
        *,
        padding: Tensor | None = None,
        start: Tensor | None = None,
        end: Tensor | None = None,
    ) -> Tensor:
        """As `encode`, but numbers in [-1, 1]: `[B, L]`."""
        return self._encode(chunks, padding, start, end).mul_(2).sub_(1)

    def decode(
        self,
        ids: Tensor | list[Tensor],
        *,
        steps: int | None = None,
        start: Tensor | None = None,
        end: Tensor | None = None,
        times: Tensor | None = None,
        duration: float = 1.0,
        derivative: int = 0,
    ) -> Tensor:
        """Ids `[B, L]` or `[B, N, dof]` -> `[B, steps, dof]`, at any number of steps.

        times: `[S]` seconds since the chunk's first sample, in place of `steps`; the chunk lasts
        `duration` seconds. derivative: 1 for velocities, 2 for accelerations, in units a second.
        """
        codec = self._require_codec()
        checked = validation.ids(ids, self._layout.length, self.size, self._layout.grid)
        phases_of = _phases(steps, times, duration)
        curve = codec.decode(checked / (self.vocab - 1), phases_of, start, end, derivative)
        return curve / duration**derivative if derivative else curve

    def decode_continuous(
        self,
        tokens: Tensor,
        *,
        steps: int | None = None,
        start: Tensor | None = None,
        end: Tensor | None = None,
        times: Tensor | None = None,
        duration: float = 1.0,
        derivative: int = 0,
    ) -> Tensor:
        """As `decode`, from numbers `[B, L]` or `[B, N, dof]`; those beyond [-1, 1] are clipped.

        Differentiable. ValueError for a number that is not finite.
        """
        codec = self._require_codec()
        checked = validation.flat(tokens, self._layout.length, self._layout.grid, "tokens")
        z = (checked if checked.dtype == torch.float64 else checked.float()) / 2 + 0.5
        if not bool(torch.isfinite(z).all()):
            raise ValueError("tokens: hold numbers that are not finite; expected them in [-1, 1]")
        phases_of = _phases(steps, times, duration)
        curve = codec.decode(z.clamp(0, 1), phases_of, start, end, derivative)
        return curve / duration**derivative if derivative else curve

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return `[dof]` lowest and highest: no decoded trajectory goes beyond, pinned ends left
        out."""
        owner, state = self._layout.joint[self._layout.smooth], self._fitted()._state
        low, high = np.full(self._layout.dof, np.inf), np.full(self._layout.dof, -np.inf)
        np.minimum.at(low, owner, state["low"])
        np.maximum.at(high, owner, state["high"])
        switches = self._layout.switches
        low[switches], high[switches] = state["levels"].T
        return low, high

    def clipped(
        self, chunks: Tensor | None = None, *, padding: Tensor | None = None
    ) -> list[float]:
        """Return `[dof]` share of a joint's control points outside its bounds (of chunks with more
        switches than tokens): of the data that was fitted, or of `chunks [B, steps, dof]`."""
        if chunks is None:
            return list(self._fitted()._state["clipped"])
        values, real = validation.chunks(chunks, self.dof, padding)
        validation.refuse_infinite(values)
        self.length(values.shape[1])
        return self._require_codec().outside(values, real)

    def errors(self) -> list[JointErrors]:
        """Return a joint's mean and largest error over the fitted data, by number of bases: of the
        curve alone, in the joint's units. Rounding adds at most half a bin."""
        return [JointErrors(**row) for row in self._fitted()._state["errors"]]

    def suggest(self, error: float, *, measure: Literal["mean", "max"] = "max") -> list[int]:
        """Return `[dof]`, the smallest `num_basis` of each joint within an error. Raise ValueError
        if no evaluated number is."""
        counts = []
        for row in self.errors():
            count = row.enough(error, measure)
            if count is None:
                best = min(getattr(row, measure))
                raise ValueError(
                    f"error: joint {row.joint} stays {best:.2g} off with up to "
                    f"{row.num_basis[-1]} bases, which is above {error:.2g}; allow more, or name "
                    "it among the grippers if it moves in steps"
                )
            counts.append(count)
        return counts

    def charts(self) -> list[Chart]:
        """Return the errors by number of bases, five joints a chart."""
        return fit_error.charts(self.errors(), self.num_basis)

    def outlines(self, actions: np.ndarray) -> list[Outline | None]:
        return outlines(self._layout.joints, actions)

    def state(self) -> dict[str, Any]:
        """`low`, `high`, `levels` as arrays; `dof`, `clipped` and `errors` as JSON."""
        return {"dof": self.dof, **self._fitted()._state}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state. Raise ValueError if it belongs to other options."""
        self._lay(validation.same_dof(self.dof, int(state["dof"])))
        count = len(self._layout.smooth)
        if len(state["low"]) != count or len(state["high"]) != count:
            raise ValueError(
                f"num_basis: the saved tokenizer has {len(state['low'])} control points, these "
                f"options have {count}; use the options that it was fitted with"
            )
        self._state = {key: value for key, value in state.items() if key != "dof"}
        self._codec = Codec(self._layout, self._stack, self._orders, self._state)

    def _encode(
        self, chunks: Tensor, padding: Tensor | None, start: Tensor | None, end: Tensor | None
    ) -> Tensor:
        values, real = validation.chunks(chunks, self.dof, padding)
        self.length(values.shape[1])
        return self._require_codec().encode(values, real, start, end)

    def _fitted(self) -> Self:
        self._require_codec()
        return self

    def _require_codec(self) -> Codec:
        if self._codec is None:
            raise ValueError("action tokenizer: used before fit; fit it, or load a saved one")
        return self._codec


def _phases(steps: int | None, times: Tensor | None, duration: float) -> np.ndarray:
    """Return the positions to evaluate, in [0, 1]. Raise ValueError unless exactly one of the two
    is set."""
    if (steps is None) == (times is None):
        raise ValueError("decode: expected either steps or times, found both or neither")
    if duration <= 0:
        raise ValueError(f"duration: found {duration} s, expected more than 0")
    if times is None:
        if steps is None or steps < 1:
            raise ValueError(f"steps: found {steps}, expected at least 1")
        return phases(steps)
    fractions = np.asarray(torch.as_tensor(times).double().cpu()) / duration
    if fractions.ndim != 1 or not ((fractions >= 0) & (fractions <= 1)).all():
        raise ValueError(f"times: expected [S] seconds within the chunk, 0 to {duration}")
    return fractions
