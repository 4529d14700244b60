"""Variation of volumes: deterministic, finite, and true to where things lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sensorium.modalities.base import Sample
from sensorium.modalities.mri.augment import MRIAugment
from sensorium.modalities.mri.io import read
from sensorium.modalities.mri.processor import VolumeProcessor

OFF = {"rotate": 0.0, "scale": 0.0, "shift": 0.0, "bias": 0.0, "gibbs": 0.0, "noise": 0.0}


@pytest.fixture(scope="module")
def sample() -> Sample:
    axes = [np.linspace(-1, 1, n) for n in (18, 20, 16)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    body = np.where(x**2 + y**2 + z**2 < 0.6, 100 + 40 * x + 20 * y, 0).astype(np.float32)
    body[12:15, 8:11, 7:10] = 400
    cell = {"array": body, "affine": np.diag([4.0, 4, 4, 1])}
    return VolumeProcessor(size=(20, 20, 20), contrasts=3).prepare(read([cell, cell, None]))


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_the_same_generator_gives_the_same_sample(sample: Sample) -> None:
    augment = MRIAugment(drop=0.3)
    first, second = augment(sample, rng()), augment(sample, rng())
    assert all(torch.equal(first[key], second[key]) for key in sample)
    other = augment(sample, np.random.default_rng(6))
    assert not torch.equal(first["volume"], other["volume"])
    assert all(first[key].shape == sample[key].shape for key in sample)
    assert all(first[key].dtype == sample[key].dtype for key in sample)
    assert bool(first["volume"].isfinite().all())


def test_with_everything_off_nothing_changes(sample: Sample) -> None:
    result = MRIAugment(**OFF)(sample, rng())
    assert all(torch.equal(result[key], sample[key]) for key in sample)


@pytest.mark.parametrize("step", ["bias", "gibbs", "noise"])
def test_scores_stay_scores_and_air_stays_air(sample: Sample, step: str) -> None:
    result = MRIAugment(**(OFF | {step: 0.5}))(sample, rng())
    body = sample["volume"][0] != 0
    assert not result["volume"][0][~body].any()
    assert abs(float(result["volume"][0][body].mean())) < 1e-4
    assert abs(float(result["volume"][0][body].std()) - 1) < 1e-3
    assert not torch.equal(result["volume"], sample["volume"])


def test_a_place_in_mm_stays_on_what_it_was(sample: Sample) -> None:
    """The bright cube is found at the same mm after any motion."""
    result = MRIAugment(**(OFF | {"rotate": 25.0, "scale": 0.15, "shift": 0.1}))(sample, rng())

    def middle(s: Sample) -> torch.Tensor:
        bright = (s["volume"][0] > 2).nonzero().double().mean(0)
        return s["affine"].double()[:3, :3] @ bright + s["affine"].double()[:3, 3]

    assert not torch.equal(result["affine"], sample["affine"])
    assert float((middle(result) - middle(sample)).norm()) < 2.0


def test_dropout_keeps_one_contrast_at_least(sample: Sample) -> None:
    remaining = [
        MRIAugment(**(OFF | {"drop": 0.9}))(sample, np.random.default_rng(i)) for i in range(30)
    ]
    counts = [int(s["contrasts"].sum()) for s in remaining]
    assert min(counts) == 1 and not any(s["contrasts"][2] for s in remaining)
    for s in remaining:
        present = s["volume"].flatten(1).any(1)
        assert torch.equal(present, s["contrasts"])
