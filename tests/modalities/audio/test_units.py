"""Units of sounds: clusters of any encoder's features, without repetitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("soundfile")

from sensorium.modalities.audio.read import Sound
from sensorium.modalities.audio.tokenizers import Units
from sensorium.modalities.signal_tokens import Codebook
from sensorium.testing import check_fittable
from sensorium.testing.common import copy_for_worker

ENCODER = {
    "type": "logmel_conformer", "weights": "none", "dim": 16, "depth": 2, "heads": 2, "mels": 24,
    "expand": 1, "normalize": "level",
}  # fmt: skip
SHARES = 20


def sound(pitch: float, seconds: float = 0.3) -> Sound:
    time = np.arange(int(seconds * 16000)) / 16000
    wave = 0.3 * np.sin(2 * np.pi * pitch * time)
    return Sound(wave[None].astype(np.float32), 16000)


SOUNDS = [sound(300), sound(3000), sound(900, 0.5)]


@pytest.fixture(scope="module")
def units() -> Units:
    tokenizer = Units(encoder=ENCODER, codes=6)
    tokenizer.fit(SOUNDS)
    return tokenizer


@pytest.mark.quick_share(SHARES)
@pytest.mark.parametrize("share", range(SHARES))
def test_units_come_back(units: Units, share: int) -> None:
    """10,000 sequences of units in all shares: their centroids have these units."""
    rng = np.random.default_rng(share)
    for _ in range(10_000 // SHARES):
        ids = torch.unique_consecutive(torch.from_numpy(rng.integers(0, 6, rng.integers(1, 20))))
        assert torch.equal(units.quantize(units.decode([ids])[0]), ids)


def test_a_unit_is_the_nearest_cluster_and_does_not_repeat(units: Units) -> None:
    features = units.features(SOUNDS[2])
    centroids = torch.from_numpy(units.state()["centroids"])
    nearest = torch.cdist(features.double(), centroids.double()).argmin(1)
    ids = units.encode([SOUNDS[2]])[0]
    assert torch.equal(ids, torch.unique_consecutive(nearest))
    units.deduplicate = False
    assert torch.equal(units.encode([SOUNDS[2]])[0], nearest)
    units.deduplicate = True


def test_equal_sounds_have_equal_units_in_every_process(units: Units) -> None:
    again = copy_for_worker(units)
    assert again._encoder is None
    for first, second in zip(units.encode(SOUNDS), again.encode(SOUNDS), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(*units.encode(SOUNDS[:2]))


def test_a_hidden_layer_may_be_clustered() -> None:
    tokenizer = Units(encoder=ENCODER, codes=4, layer=0)
    tokenizer.fit(SOUNDS)
    assert not torch.equal(
        tokenizer.features(SOUNDS[0]), Units(encoder=ENCODER).features(SOUNDS[0])
    )


def test_they_meet_the_contract() -> None:
    check_fittable(Units, SOUNDS, encoder=ENCODER, codes=5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: Units(encoder={}), "encoder: has no type"),
        (lambda _: Units(encoder={"type": "whispr"}), "encoder.type: found 'whispr'; did you mean"),
        (lambda _: Units(encoder=ENCODER).encode(SOUNDS), "units: used before fit"),
        (lambda _: Units(encoder=ENCODER, codes=5000).fit(SOUNDS), "codes: found 5000, and the"),
        (
            lambda _: Units(encoder={k: v for k, v in ENCODER.items() if k != "weights"}).fit(
                SOUNDS
            ),
            "encoder.weights: found None, expected .* or weights: none",
        ),
        (lambda u: u.decode([[1, 1]]), "position 1: 1 repeats the unit before"),
        (lambda u: u.decode([[1, 6]]), "position 1: found 6, expected 0 to 5"),
        (lambda _: Units(encoder=ENCODER, codes=9).load_state({"centroids": np.ones((2, 3))}), "9"),
    ],
)
def test_mistakes_are_one_line(units: Units, call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call(units)
    assert "\n" not in str(caught.value)


def test_ties_go_to_the_first_centroid() -> None:
    book = Codebook(np.array([[0.0], [2.0]]))
    assert book.nearest(torch.tensor([[1.0], [1.1]])).tolist() == [0, 1]
