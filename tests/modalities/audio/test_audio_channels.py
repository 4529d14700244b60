"""Resampling, and how channels are mixed."""

from __future__ import annotations

import io
import itertools
import math

import numpy as np
import pytest
import soundfile
import torch

from sensorium.modalities.audio.processor import mono
from sensorium.modalities.audio.read import Sound, read
from sensorium.modalities.base import ReadError

RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000)


def decibels(wave: torch.Tensor) -> float:
    edge = len(wave) // 8
    return 10 * math.log10(float(wave[edge:-edge].square().mean()) / 0.5 + 1e-20)


def tone(frequency: float, rate: int) -> Sound:
    time = np.arange(rate // 4) / rate
    return Sound(np.sin(2 * np.pi * frequency * time).astype(np.float32)[None], rate)


@pytest.mark.quick_share(4)
@pytest.mark.parametrize("source,target", list(itertools.permutations(RATES, 2)))
def test_resampling_folds_no_tone_and_keeps_the_others(source: int, target: int) -> None:
    half = min(source, target) / 2
    for share in (0.1, 0.5, 0.9):
        assert abs(decibels(mono(tone(share * half, source), target))) < 0.1
    if source > target:
        for frequency in np.linspace(1.002 * target / 2, 0.99 * source / 2, 7):
            assert decibels(mono(tone(float(frequency), source), target)) < -60
    else:  # no image of the tone above the old half
        wave = mono(tone(0.9 * half, source), target).double()
        spectrum = torch.fft.rfft(wave * torch.hann_window(len(wave), dtype=torch.float64)).abs()
        above = spectrum[math.ceil(1.02 * half / target * len(wave)) :]
        assert not len(above) or float(above.max() / spectrum.max()) < 1e-3


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.05, (count, 48000)).astype(np.float32)


ITU = {"front": 0.5**0.5, "center": 1.0, "lfe": 0.0, "surround": 0.5}
L, C, B, S = "front", "center", "lfe", "surround"
LAYOUTS: dict[str, tuple[str, str, list[str]]] = {
    "5.1 in WAV": ("WAVEX", "FLOAT", [L, L, C, B, S, S]),
    "5.1 in WAV, unsaid": ("WAV", "FLOAT", [L, L, C, B, S, S]),
    "5.1 in FLAC": ("FLAC", "PCM_16", [L, L, C, B, S, S]),
    "5.1 in Ogg": ("OGG", "VORBIS", [L, C, L, S, S, B]),
    "four in WAV": ("WAVEX", "FLOAT", [L, L, S, S]),
    "stereo": ("WAV", "FLOAT", [L, L]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_channels_are_mixed_by_where_they_stand(name: str) -> None:
    kind, subtype, places = LAYOUTS[name]
    buffer = io.BytesIO()
    waves = noise(len(places))
    soundfile.write(buffer, waves.T, 48000, format=kind, subtype=subtype)
    sound = read(buffer.getvalue())
    weights = np.array([ITU[place] for place in places])
    expected = weights @ sound.samples / weights.sum()
    np.testing.assert_allclose(mono(sound, 48000).numpy(), expected, atol=1e-6)


def test_speech_in_the_centre_is_not_drowned_by_the_bass() -> None:
    waves = np.zeros((6, 48000), np.float32)
    speech, rumble = noise(1)[0], 0.9 * np.sin(np.arange(48000) / 200).astype(np.float32)
    waves[2], waves[3] = speech, rumble
    buffer = io.BytesIO()
    soundfile.write(buffer, waves.T, 48000, format="WAV", subtype="FLOAT")
    mixture = mono(read(buffer.getvalue()), 48000).numpy()
    assert abs(np.corrcoef(mixture, speech)[0, 1]) > 0.999


def test_ffmpeg_mixes_alike() -> None:
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    soundfile.write(buffer, noise(6).T, 48000, format="WAVEX", subtype="PCM_16")
    sound = read(buffer.getvalue())
    buffer.seek(0)
    resampler = av.AudioResampler(format="s16", layout="mono", rate=48000)
    with av.open(buffer) as file:
        frames = [r for f in file.decode(audio=0) for r in resampler.resample(f)]
    known = np.concatenate([frame.to_ndarray()[0] for frame in frames]) / 32768
    np.testing.assert_allclose(mono(sound, 48000).numpy()[: len(known)], known, atol=2e-4)


@pytest.mark.parametrize("rate", [48000, 16000])
@pytest.mark.parametrize("leak", [0.0, 0.02])
def test_inverted_stereo_is_refused_and_one_channel_can_be_named(rate: int, leak: float) -> None:
    wave, other = noise(2)
    stereo = np.stack([wave, -wave + leak * other])
    for cell in ({"array": stereo, "rate": 48000}, {"array": stereo[:, ::-1], "rate": 48000}):
        with pytest.raises(ReadError, match="2 channels cancel when mixed"):
            mono(read(cell), rate)
        assert mono(read({**cell, "channel": 0}), 48000).square().mean() > 1e-3
    for fine in (noise(2), np.stack([wave, 0 * wave]), np.zeros((2, 48000), np.float32), noise(8)):
        assert mono(Sound(fine, 48000), rate).isfinite().all()


@pytest.mark.parametrize("count", [1, 3, 8, 64])
def test_microphones_of_unknown_places_are_averaged(count: int) -> None:
    waves = noise(count)
    mixture = mono(Sound(waves, 48000), 48000).numpy()
    np.testing.assert_allclose(mixture, waves.mean(0), atol=1e-6)
