"""Log-mels against torchaudio's, and sounds that cannot be prepared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio

from sensorium.modalities.audio import processor
from sensorium.modalities.audio.encoders.logmel_conformer import LogMelConformer
from sensorium.modalities.audio.processor import LogMel, mono
from sensorium.modalities.audio.read import Sound
from sensorium.modalities.base import ReadError


def noise(count: int, rate: int = 16000, channels: int = 1) -> Sound:
    samples = np.random.default_rng(0).normal(0, 0.1, (channels, count)).astype(np.float32)
    return Sound(samples, rate)


@pytest.mark.parametrize(
    "options", [{}, {"hop": 0.008, "mels": 40, "low": 60.0}, {"window": 0.032}]
)
def test_mels_are_torchaudios(options: dict[str, float]) -> None:
    mel = LogMel(**options)  # type: ignore[arg-type]
    sound = noise(8000)
    peer = torchaudio.transforms.MelSpectrogram(
        mel.rate,
        n_fft=mel.size,
        win_length=round(mel.window * mel.rate),
        hop_length=round(mel.hop * mel.rate),
        f_min=mel.low,
        f_max=mel.high,
        n_mels=mel.mels,
        pad_mode="constant",
    )
    want = peer(torch.from_numpy(sound.samples))[0].mT.log()
    assert torch.allclose(mel.prepare(sound)["mels"], want, atol=1e-4)


@pytest.mark.parametrize("count", [400, 8000, 8079, 8080, 8081])
def test_a_long_recording_is_transformed_a_part_at_a_time(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LogMel().prepare(noise(count))["mels"]
    monkeypatch.setattr(processor, "TOGETHER", 7)
    assert torch.allclose(LogMel().prepare(noise(count))["mels"], whole, atol=1e-5)
    assert len(whole) == 1 + count // 160


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 192000])
def test_a_tone_keeps_its_pitch_at_any_rate(rate: int) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
    same = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    result = LogMel().prepare(Sound(np.stack([tone] * 7), rate))["mels"]
    want = LogMel().prepare(Sound(same[None], 16000))["mels"]
    assert result.shape == want.shape
    assert torch.equal(result[20:-20].argmax(-1), want[20:-20].argmax(-1))


def test_a_frame_is_centred_on_its_hop() -> None:
    samples = np.zeros((1, 16000), np.float32)
    samples[0, 8000] = 1
    energy = LogMel(hop=0.01).prepare(Sound(samples, 16000))["mels"].sum(-1)
    assert energy.argmax() == 50


def test_silence_is_the_floor() -> None:
    mels = LogMel().prepare(Sound(np.zeros((1, 4000), np.float32), 16000))["mels"]
    assert torch.equal(mels, torch.full_like(mels, float(np.log(np.float32(1e-10)))))


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        (noise(0), "0 ms of sound; expected at least one window, 25 ms"),
        (noise(200), "12.5 ms of sound; expected at least one window"),
        (Sound(np.full((1, 1000), np.nan, np.float32), 16000), "not finite"),
        (noise(40000, 44101), "44101 Hz, which has no filter of a sane size to 16000 Hz"),
    ],
)
def test_a_sound_that_cannot_be_prepared(sound: Sound, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        LogMel().prepare(sound)


def test_channels_are_mixed() -> None:
    stereo = noise(4000, channels=2)
    assert torch.allclose(mono(stereo, 16000), torch.from_numpy(stereo.samples.mean(0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"high": 9000.0}, "high: found bands from 20 to 9000 Hz"),
        ({"hop": 0.03}, "hop: found 0.03 s"),
        ({"mels": 300}, "mels: found 300 bands"),
        ({"dim": 30}, "heads: found 4 at dim 30"),
        ({"kernel": 4}, "kernel: found 4, expected an odd number; use 5"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogMelConformer(**options)  # type: ignore[arg-type]


def test_a_gain_does_not_matter_where_it_should_not() -> None:
    for how, same in (("bands", True), ("level", True), ("fixed", False)):
        torch.manual_seed(0)
        encoder = LogMelConformer(dim=16, heads=2, depth=1, mels=20, normalize=how).eval()  # type: ignore[arg-type]
        sound = noise(8000)
        soft = Sound(sound.samples * 0.25, 16000)
        a, b = (
            encoder(**encoder.collate([encoder.processor.prepare(s)])).tokens for s in (sound, soft)
        )
        assert torch.allclose(a, b, atol=1e-4) is same
