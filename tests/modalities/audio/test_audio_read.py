"""Reading sound: every form that it comes in, and one clear line for what is none."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from sensorium.modalities.audio.preview import preview, spectrogram
from sensorium.modalities.audio.read import LazySound, Sound, example, read
from sensorium.modalities.base import ReadError

RATE = 8000
KINDS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_U8"),
    ("WAV", "FLOAT"),
    ("WAV", "ULAW"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("MP3", "MPEG_LAYER_III"),
    ("AIFF", "PCM_16"),
]
CLOSE = {"PCM_U8": 0.02, "ULAW": 0.05, "VORBIS": 0.2, "MPEG_LAYER_III": 0.2}


def tone(seconds: float = 1.0, channels: int = 1, rate: int = RATE) -> np.ndarray:
    """`[N, C]`, as soundfile writes: a tone of another height in each channel."""
    time = np.arange(round(seconds * rate))[:, None] / rate
    return 0.5 * np.sin(2 * np.pi * 200 * (1 + np.arange(channels)) * time)


def encoded(
    samples: np.ndarray, kind: str = "WAV", subtype: str = "PCM_16", rate: int = RATE
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_every_form_of_a_source_gives_the_same_sound(
    kind: str, subtype: str, tmp_path: Path
) -> None:
    wave = tone(channels=2)
    data = encoded(wave, kind, subtype)
    path = tmp_path / "sound.raw"  # a name that would mislead libsndfile
    path.write_bytes(data)
    cells: list[Any] = [data, bytearray(data), path, str(path), io.BytesIO(data)]
    cells += [{"bytes": data, "path": "gone.wav"}, {"bytes": None, "path": str(path)}]
    with path.open("rb") as file:
        result = [read(cell) for cell in (*cells, file)]
    assert result[0].samples.dtype == np.float32
    assert result[0].rate == RATE
    assert result[0].samples.shape == (2, RATE)
    assert np.abs(result[0].samples - wave.T).max() < CLOSE.get(subtype, 1e-3)
    assert all(np.array_equal(result[0].samples, other.samples) for other in result)


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_a_segment_is_that_part_of_the_whole(kind: str, subtype: str) -> None:
    data = encoded(tone(2.0), kind, subtype)
    whole, part = read(data), read({"bytes": data, "start": 0.5, "end": 1.25})
    assert part.samples.shape == (1, round(0.75 * RATE))
    cut = whole.segment(0.5, 1.25).samples
    assert np.abs(part.samples - cut).max() < (0.05 if kind == "MP3" else 1e-6)
    assert read({"bytes": data, "start": 1.5}).seconds == pytest.approx(0.5)
    assert read({"bytes": data, "end": 9.0}).seconds == pytest.approx(2.0)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", "float32", "float64"])
def test_integers_and_floats_are_equally_loud(dtype: str) -> None:
    wave = tone()[:, 0]
    kind = np.dtype(dtype)
    if kind.kind == "f":
        array = wave.astype(kind)
    else:
        scale = np.iinfo(kind).max if kind.kind == "i" else 127
        array = (np.rint(wave * scale) + (128 if kind.kind == "u" else 0)).astype(kind)
    for cell in (
        (array, RATE),
        {"array": array, "sampling_rate": RATE},
        {"array": torch.from_numpy(array), "rate": RATE},
    ):
        assert np.abs(read(cell).samples[0] - wave).max() < 0.02
    stereo = read((np.stack([array, array]), RATE))
    assert stereo.samples.shape == (2, RATE)
    assert read({"array": array, "rate": RATE, "start": 0.5}).seconds == 0.5


def test_a_sound_and_a_lazy_one_are_read() -> None:
    class Made(LazySound):
        def sound(self) -> Sound:
            return example(np.random.default_rng(1))

    assert np.array_equal(read(Made()).samples, read(example(np.random.default_rng(1))).samples)


@pytest.mark.parametrize(
    ("samples", "rate"),
    [
        (np.zeros((RATE, 1)), RATE),
        (np.sign(tone()), RATE),
        (tone(channels=7), RATE),
        (tone(rate=192_000), 192_000),
        (tone()[:1], RATE),
    ],
    ids=["silence", "clipped", "7 channels", "192 kHz", "one sample"],
)
def test_odd_sounds_are_sounds(samples: np.ndarray, rate: int) -> None:
    result = read(encoded(samples, "WAV", "FLOAT", rate))
    assert result.rate == rate
    assert np.abs(result.samples - samples.T).max() < 1e-6
    assert preview(result).count("base64") == 2


def test_samples_beyond_one_are_saturated() -> None:
    result = read((1.4 * np.sign(tone()[:, 0]), RATE))
    assert set(np.unique(result.samples)) <= {-1.0, 0.0, 1.0}


def test_a_wav_that_did_not_know_its_length_is_whole() -> None:
    data = bytearray(encoded(tone()))
    place = data.index(b"data") + 4
    data[place : place + 4] = b"\xff\xff\xff\xff"
    assert read(bytes(data)).samples.shape == (1, RATE)


def nan() -> np.ndarray:
    wave = tone()
    wave[7] = np.nan
    return wave


BAD: dict[str, tuple[Any, str]] = {
    "nan": (encoded(nan(), "WAV", "FLOAT"), "1 of 8000 samples are not finite"),
    "infinite": ((np.array([0.0, np.inf]), RATE), "1 of 2 samples are not finite"),
    "no samples": (encoded(np.zeros((0, 1))), "holds no samples"),
    "no bytes": (b"", "it is empty"),
    "not audio": (b"From: somebody\nTo: nobody\n" * 50, "no sound"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, "no sound"),
    "no such file": ("nowhere/at/all.wav", "No such file"),
    "a text file": (io.StringIO("la la la"), "returns str, not bytes"),
    "no rate": (np.zeros(100), "without its rate"),
    "rate of zero": ((np.zeros(100), 0), "rate 0"),
    "rate unsaid": ({"array": np.zeros(100)}, "rate None"),
    "broken rate": ((np.zeros(100), 22050.5), "rate of 22050.5 Hz"),
    "transposed": ((np.zeros((4000, 2)), RATE), "4000 channels of 2 samples"),
    "integers as floats": ((np.array([0.0, 12000.0]), RATE), "floats up to 12000"),
    "64-bit integers": ((np.zeros(9, np.int64), RATE), "values of type int64"),
    "complex": ((np.zeros(9, complex), RATE), "an array complex128"),
    "an empty cell": ({"bytes": None, "path": None}, "a cell with the keys"),
    "behind the end": ({"bytes": encoded(tone()), "start": 3.0}, "a segment from 3.0 s"),
    "backwards": ({"bytes": encoded(tone()), "start": 0.5, "end": 0.2}, "from 0.5 to 0.2 s"),
    "nothing": (3.5, "no kind of sound"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_sound_is_one_clear_line(name: str) -> None:
    source, wrong = BAD[name]
    with pytest.raises(ReadError, match=wrong) as raised:
        read(source)
    assert "\n" not in str(raised.value)
    assert "; expected " in str(raised.value)


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_file_is_said_to_be_so(kind: str, subtype: str, share: float) -> None:
    data = encoded(np.random.default_rng(0).normal(0, 0.1, (RATE * 2, 1)), kind, subtype)
    with pytest.raises(ReadError, match=r"truncated|broken|holds no samples"):
        read(data[: int(len(data) * share)])


def test_a_spectrogram_shows_a_tone_at_its_height() -> None:
    result = spectrogram(Sound(tone()[:, 0][None].astype(np.float32), RATE))
    loudest = np.bincount(result.argmax(0)).argmax()
    share = (result.shape[0] - 1 - loudest) / (result.shape[0] - 1)
    assert share * RATE / 2 == pytest.approx(200, abs=RATE / 2 / result.shape[0])


def test_a_long_sound_is_cut_in_a_page() -> None:
    html = preview(Sound(np.zeros((1, RATE * 40), np.float32), RATE))
    assert "the first 30 s" in html
    assert "40.00 s" in html
