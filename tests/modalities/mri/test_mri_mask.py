"""A mask as a stream: it keeps its space, and lies where its volume lies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sensorium.modalities.mri.encoders.mask import Mask, example
from sensorium.modalities.mri.io import read_mask


def test_tokens_are_the_voxels_in_their_own_space() -> None:
    encoder, rng = Mask(), np.random.default_rng(0)
    raws = [example(rng), read_mask({"array": np.ones((3, 4, 5)), "affine": np.diag([2, 2, 2, 1])})]
    features = encoder(**encoder.collate([encoder.processor.prepare(raw) for raw in raws]))
    assert features.grid == (20, 22, 18) and features.dim == 1
    assert features.spacing == (1.0, 1.0, 1.0) and features.origin == (0.0, 0.0, 0.0)
    for index, raw in enumerate(raws):
        assert torch.equal(features.affine[index], raw.affine.float())
        whole = features.tokens[index].unflatten(0, features.grid)[..., 0]
        x, y, z = raw.shape[1:]
        assert torch.equal(whole[:x, :y, :z], raw[0].as_tensor())
        assert int(features.mask[index].sum()) == x * y * z
        assert not whole.sum() - whole[:x, :y, :z].sum()


@pytest.mark.parametrize("fill", [0, 1])
def test_empty_and_full_masks_are_masks(fill: int) -> None:
    result = read_mask({"array": np.full((4, 4, 4), fill), "affine": np.eye(4)})
    assert result.unique().tolist() == [fill]


def test_nothing_trains() -> None:
    assert not list(Mask().parameters())
