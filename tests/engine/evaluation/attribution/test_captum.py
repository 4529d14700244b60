"""Maps of signals are those of captum where it has the method."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorium.engine.evaluation.attribution import METHODS, Cells, Scorer
from sensorium.engine.evaluation.attribution.scorer import differentiable

captum_attr = pytest.importorskip("captum.attr")

from sensorium.tests.engine.evaluation.attribution.test_maps import (  # noqa: E402
    cells,
    model,
    scorer,
)

__all__ = ["cells", "model", "scorer"]


def test_gradient_times_input_is_captums(scorer: Scorer, cells: Cells) -> None:
    def forward(value: Tensor) -> Tensor:
        return scorer.scores(cells.place, value)[:, 0]

    value = scorer.tensor(cells.place).clone().requires_grad_(True)
    with differentiable(scorer.model), torch.enable_grad():
        theirs: Any = captum_attr.InputXGradient(forward).attribute(value)
    expected = cells.sums(theirs[0].detach())
    np.testing.assert_allclose(METHODS["gradient"](scorer, cells, "zero")[0], expected, atol=1e-5)


def test_occlusion_is_captums(scorer: Scorer, cells: Cells) -> None:
    value = scorer.tensor(cells.place)
    window = (
        value.shape[1],
        *(value.shape[a + 1] // n for a, n in zip(cells.axes, cells.grid, strict=True)),
    )
    with torch.no_grad():
        theirs: Any = captum_attr.Occlusion(
            lambda value: scorer.scores(cells.place, value)[:, 0]
        ).attribute(value, sliding_window_shapes=window, strides=window, baselines=0.0)
    expected = cells.sums(theirs[0]) / np.prod(window)
    np.testing.assert_allclose(METHODS["occlusion"](scorer, cells, "zero")[0], expected, atol=1e-5)
