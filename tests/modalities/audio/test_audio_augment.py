"""Augmentation of log-mels and waveforms: what each option does, and nothing more."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorium.engine.recipe import find
from sensorium.modalities.audio import AUDIO
from sensorium.modalities.audio.augment import MelAugment, WaveAugment

FRAMES, BANDS = 200, 40
EACH: list[dict[str, Any]] = [
    {"speed": 0.1},
    {"room": 30.0},
    {"tilt": 6.0},
    {"noise": [0.0, 20.0], "noise_chance": 1.0},
    {"gain": 6.0},
    {"time_masks": 2, "time_width": 0.1},
    {"band_masks": 2},
]
ALL = {key: value for options in EACH for key, value in options.items()}


def mels() -> Tensor:
    return torch.randn(FRAMES, BANDS, generator=torch.Generator().manual_seed(0)) * 2 - 8


def applied(seed: int = 0, **options: Any) -> Tensor:
    return MelAugment(**options)({"mels": mels()}, np.random.default_rng(seed))["mels"]


@pytest.mark.parametrize("name", AUDIO.augments)
def test_without_options_nothing_happens(name: str) -> None:
    sample = {"mels": mels()} if name == "audio" else {"wave": mels()[:, 0]}
    result = find("audio_augment", name, "here")()(sample, np.random.default_rng(0))
    assert result.keys() == sample.keys()
    assert all(torch.equal(result[k], v) for k, v in sample.items())


@pytest.mark.parametrize("options", [*EACH, ALL], ids=lambda o: "+".join(o))
def test_the_same_generator_gives_the_same_values(options: dict[str, Any]) -> None:
    result = [applied(seed, **options) for seed in (1, 1, 2)]
    assert torch.equal(result[0], result[1])
    assert result[0].shape != result[2].shape or not torch.equal(result[0], result[2])
    assert result[0].dtype == torch.float32
    assert result[0].isfinite().all()
    assert applied(3, **options).shape[1] == BANDS


@pytest.mark.parametrize("options", [*EACH, ALL], ids=lambda o: "+".join(o))
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_a_very_short_sample_and_silence_stay_finite(options: dict[str, Any], frames: int) -> None:
    for value in (math.log(1e-10), 0.0):
        sample = {"mels": torch.full((frames, BANDS), value)}
        result = MelAugment(**options)(sample, np.random.default_rng(0))["mels"]
        assert result.isfinite().all()
        assert 1 <= len(result) <= frames + 1
        assert torch.equal(sample["mels"], torch.full((frames, BANDS), value))


def test_speed_stays_within_its_bounds_and_keeps_the_order_of_things() -> None:
    ramp = torch.arange(FRAMES, dtype=torch.float32)[:, None].expand(-1, BANDS)
    lengths = set()
    for seed in range(40):
        built = MelAugment(speed=0.1)({"mels": ramp}, np.random.default_rng(seed))["mels"]
        lengths.add(len(built))
        assert (built.diff(dim=0) >= 0).all()
        assert (built[0, 0].item(), built[-1, 0].item()) == pytest.approx((0, FRAMES - 1), abs=0.2)
    assert min(lengths) >= 0.9 * FRAMES
    assert max(lengths) <= 1.1 * FRAMES
    assert len(lengths) > 10


def test_a_room_only_adds_and_only_later() -> None:
    click = torch.full((60, 3), -20.0)
    click[20] = 0.0
    built = MelAugment(room=40.0)({"mels": click}, np.random.default_rng(0))["mels"]
    assert (built >= click - 1e-5).all()
    assert (built[:20] - click[:20]).max() <= math.log(1.5)  # its own echoes, no more
    assert torch.allclose(built[20], click[20])
    tail = built[21:30, 0]
    assert (tail > -20).all()
    assert (tail.diff() < 0).all()
    assert tail.exp().sum() <= 0.5


@pytest.mark.parametrize("ratio", [0.0, 10.0])
def test_noise_has_its_stated_power(ratio: float) -> None:
    clean = mels()
    noisy = applied(noise=[ratio, ratio], noise_chance=1.0)
    assert (noisy > clean).all()
    added = (noisy.exp() - clean.exp()).mean() / clean.exp().mean()
    assert 10 * torch.log10(added) == pytest.approx(-ratio, abs=0.5)


def test_noise_comes_by_chance() -> None:
    hit = [
        not torch.equal(applied(seed, noise=[0.0, 0.0], noise_chance=0.3), mels())
        for seed in range(300)
    ]
    assert np.mean(hit) == pytest.approx(0.3, abs=0.08)


def test_tilt_and_gain_move_whole_bands() -> None:
    tilted, louder = applied(tilt=12.0) - mels(), applied(gain=6.0) - mels()
    assert tilted.std(0).max() < 1e-5
    line = tilted.mean(0)
    assert torch.allclose(line.diff(), line.diff()[0].expand(BANDS - 1), atol=1e-4)
    assert line.abs().max() <= 6 * math.log(10) / 10 + 1e-5
    assert louder.std() < 1e-5
    assert 0 < louder.abs().max() <= 6 * math.log(10) / 10 + 1e-5


def test_masks_hold_the_mean_and_are_no_wider_than_asked() -> None:
    for seed in range(30):
        built = applied(seed, time_masks=2, time_width=0.1, band_masks=1, band_width=0.25)
        changed = built != mels()
        assert torch.allclose(built[changed], mels().mean(), atol=1e-4)
        rows, columns = changed.all(1), changed.all(0)
        assert rows.sum() <= 2 * 0.1 * FRAMES
        assert columns.sum() <= 0.25 * BANDS
        assert torch.equal(changed, rows[:, None] | columns)


def test_a_wave_gets_noise_and_another_level() -> None:
    wave = torch.sin(torch.arange(16000) / 20)
    sample = {"wave": wave}
    noisy = WaveAugment(noise=[10.0, 10.0], noise_chance=1.0)(sample, np.random.default_rng(0))
    ratio = wave.square().mean() / (noisy["wave"] - wave).square().mean()
    assert 10 * torch.log10(ratio) == pytest.approx(10, abs=0.3)
    louder = WaveAugment(gain=6.0)(sample, np.random.default_rng(0))["wave"]
    assert torch.allclose(louder / louder[5] * wave[5], wave, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"speed": 0.5}, "speed: found 0.5"),
        ({"noise": [3.0]}, "noise: found"),
        ({"noise": [20.0, 0.0]}, "noise: found"),
        ({"noise_chance": 2.0}, "noise_chance: found 2.0"),
        ({"time_width": -0.1}, "time_width: found -0.1"),
        ({"band_masks": -1}, "band_masks: found -1"),
        ({"room": -1.0}, "room: found -1.0"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=f"^{wrong}"):
        MelAugment(**options)
    if options.keys() <= {"noise", "noise_chance", "gain"}:
        with pytest.raises(ValueError, match=f"^{wrong}"):
            WaveAugment(**options)


def test_the_wrong_kind_of_sample_is_named() -> None:
    with pytest.raises(ValueError, match=r"wave \(16,\); try type: wave"):
        MelAugment()({"wave": torch.zeros(16)}, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"mels \(4, 3\); try type: audio"):
        WaveAugment()({"mels": torch.zeros(4, 3)}, np.random.default_rng(0))
