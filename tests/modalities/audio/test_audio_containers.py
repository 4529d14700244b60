"""Sound as programs leave it: unknown lengths, chained streams, many channels, any rate."""

from __future__ import annotations

import io
import itertools
import math
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from sensorium.modalities.audio.processor import mono
from sensorium.modalities.audio.read import Sound, read, suffixes
from sensorium.modalities.base import ReadError

RATE = 16000
WAVE = (0.3 * np.sin(np.arange(RATE) / 5)).astype(np.float32)
PCM = (WAVE * 32767).astype("<i2").tobytes()
FORMATS: dict[str, tuple[str, str | None]] = {
    "wav": ("WAV", None), "flac": ("FLAC", None), "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"), "mp3": ("MP3", None), "aiff": ("AIFF", None), "au": ("AU", None),
    "caf": ("CAF", None), "w64": ("W64", None), "rf64": ("RF64", None),
}  # fmt: skip
SUFFIXES = {
    "aif": "aiff", "aiff": "aiff", "au": "au", "caf": "caf", "flac": "flac", "mp3": "mp3",
    "oga": "vorbis", "ogg": "vorbis", "opus": "opus", "w64": "w64", "wav": "wav",
}  # fmt: skip


def encoded(name: str, wave: np.ndarray = WAVE, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    kind, subtype = FORMATS[name]
    soundfile.write(buffer, wave, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def wav(size: int, riff: int, order: str = "<", before: bytes = b"", after: bytes = b"") -> bytes:
    pcm = PCM if order == "<" else np.frombuffer(PCM, "<i2").astype(">i2").tobytes()
    form = struct.pack(f"{order}HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    head = (b"RIFF" if order == "<" else b"RIFX") + struct.pack(f"{order}I", riff) + b"WAVE"
    chunks = before + b"fmt " + struct.pack(f"{order}I", 16) + form
    return head + chunks + b"data" + struct.pack(f"{order}I", size) + pcm + after


def ways(content: bytes, folder: Path) -> list[Any]:
    (folder / "a").write_bytes(content)
    return [content, folder / "a", io.BytesIO(content), {"bytes": content, "path": None}]


LENGTHS = (0, 0x7FFFF000, 0x7FFFFF00, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
RIFFS = (0, 8, 36, 0x7FFFF024, 0xFFFFFFFF)
JUNK = b"LIST" + struct.pack("<I", 4) + b"INFO"


@pytest.mark.parametrize("riff", RIFFS)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_piped_wav_is_read_to_its_end(tmp_path: Path, length: int, riff: int) -> None:
    for content in (wav(length, riff), wav(length, riff, ">"), wav(length, riff, before=JUNK)):
        for source in ways(content, tmp_path):
            np.testing.assert_allclose(read(source).samples[0], WAVE, atol=1e-4)
        part = read({"bytes": content, "start": 0.25, "end": 0.5})
        np.testing.assert_allclose(part.samples[0], WAVE[4000:8000], atol=1e-4)
    assert read(wav(length, riff, after=b"\1")).samples.shape == (1, RATE)  # half a sample


def test_a_known_length_is_believed() -> None:
    with pytest.raises(ReadError, match="truncated: 32000 of 64000 bytes"):
        read(wav(64000, 64036))
    with pytest.raises(ReadError, match="it holds no samples"):
        read(wav(0, 36)[:44] + JUNK)
    whole = wav(len(PCM), 36 + len(PCM) + len(JUNK), after=JUNK)
    assert read(whole).samples.shape == (1, RATE)


@pytest.mark.parametrize("unknown", [0, 2**64 - 1])
def test_a_piped_rf64_is_read_to_its_end(unknown: int) -> None:
    content = bytearray(encoded("rf64"))
    place = content.index(b"ds64")
    content[place + 8 : place + 32] = struct.pack("<QQQ", unknown, unknown, unknown)
    np.testing.assert_allclose(read(bytes(content)).samples[0], WAVE, atol=1e-4)


def test_a_piped_flac_is_read_to_its_end(tmp_path: Path) -> None:
    content = bytearray(encoded("flac"))
    content[21] &= 0xF0  # the number of samples in STREAMINFO
    content[22:26] = bytes(4)
    for source in ways(bytes(content), tmp_path):
        np.testing.assert_allclose(read(source).samples[0], WAVE, atol=1e-4)
    part = read({"bytes": bytes(content), "start": 0.25, "duration": 0.25})
    np.testing.assert_allclose(part.samples[0], WAVE[4000:8000], atol=1e-4)
    with pytest.raises(ReadError, match=r"a segment from 2\.0 s of a sound of 1\.000 s"):
        read({"bytes": bytes(content), "start": 2.0})


def test_a_number_of_samples_that_is_wrong_takes_no_memory() -> None:
    content = bytearray(encoded("flac"))
    content[21] |= 0x0F  # the number of samples in STREAMINFO
    with pytest.raises(ReadError, match=r"truncated: 16000 of \d{11} samples|broken or truncated"):
        read(bytes(content))
    for byte in (b"\xff", b"O", b"R", b"\xff\xfb"):
        with pytest.raises(ReadError, match="no sound, or a broken header"):
            read(byte)


PIPED = {  # name -> changes of a whole file: (mark, offset behind it, format, value)
    "au": [[(b".snd", 4, ">I", value)] for value in (0, 0xFFFFFFFF)],
    "caf": [[(b"data", 0, ">q", value)] for value in (-1, 2**63 - 1)],
    "aiff": [
        [(b"SSND", 0, ">I", size), (b"FORM", 0, ">I", size), (b"COMM", 6, ">I", frames)]
        for size, frames in ((0, 0), (0x7FFFF000, 0x3FFFF800), (0xFFFFFFFF, 0))
    ],
}


@pytest.mark.parametrize(("name", "case"), [(n, i) for n in PIPED for i in range(len(PIPED[n]))])
def test_piped_files_of_other_formats_are_read_to_their_end(
    tmp_path: Path, name: str, case: int
) -> None:
    whole = encoded(name)
    content = bytearray(whole)
    for mark, offset, kind, value in PIPED[name][case]:
        struct.pack_into(kind, content, whole.index(mark) + 4 + offset, value)
    for source in ways(bytes(content), tmp_path):
        np.testing.assert_array_equal(read(source).samples, read(whole).samples)
    with pytest.raises(ReadError):
        read(whole[:-2000])  # a length that was known is believed


SEGMENTS = [(0.2, 0.4), (0.5, 1.3), (0.5, None), (1.2, 1.4), (0.0, 1.5), (0.9, 1.0)]


@pytest.mark.parametrize(("start", "end"), SEGMENTS)
@pytest.mark.parametrize("name", ["vorbis", "flac"])
def test_a_segment_of_a_chain_is_that_of_the_whole(
    name: str, start: float, end: float | None
) -> None:
    chain = encoded(name) + encoded(name, WAVE[::-1].copy())
    whole = read(chain).segment(start, end)
    segment = read({"bytes": chain, "start": start, "end": end})
    np.testing.assert_allclose(segment.samples, whole.samples, atol=1e-6)


@pytest.mark.parametrize(("kind", "told"), [("WAV", True), ("FLAC", False), ("AIFF", False)])
def test_six_channels_without_a_mask_are_said(kind: str, told: bool) -> None:
    """Microphones and 5.1 look alike there; one channel would be left out without a word."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([WAVE] * 6, 1), RATE, format=kind, subtype="PCM_16")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read(buffer.getvalue())
    lines = [str(w.message) for w in caught if "six channels" in str(w.message)]
    assert bool(lines) is told
    assert not told or "channel: 0 to 5" in lines[0]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", ["vorbis", "opus", "mp3", "flac"])
def test_a_chain_is_read_whole(tmp_path: Path, name: str, count: int) -> None:
    one = encoded(name)
    single = read(one).samples
    for source in ways(one * count, tmp_path):
        np.testing.assert_array_equal(read(source).samples, np.tile(single, count))
    if name in ("vorbis", "opus"):
        part = read({"bytes": one * count, "start": 0.5, "end": 1.5}).samples
        np.testing.assert_array_equal(part, np.tile(single, 2)[:, RATE // 2 : RATE * 3 // 2])


def test_a_chain_of_two_kinds_is_refused() -> None:
    with pytest.raises(ReadError, match="number 2 has 8000 Hz"):
        read(encoded("vorbis") + encoded("vorbis", rate=8000))
    with pytest.raises(ReadError, match="number 2 has 16000 Hz and 2 channels"):
        read(encoded("vorbis") + encoded("vorbis", np.stack([WAVE, WAVE], 1)))


@pytest.mark.parametrize("name", ["vorbis", "mp3", "flac"])
def test_what_stands_behind_a_single_stream_makes_no_chain(name: str) -> None:
    content = encoded(name)
    for tail in (b"TAG" + bytes(125), b"\xff" * 40, b"fLaC is a format"):
        try:
            samples = read(content + tail).samples
        except ReadError:  # Ogg: junk after the last page
            assert name == "vorbis"
        else:
            np.testing.assert_array_equal(samples, read(content).samples)


def test_every_suffix_of_audiofolder_is_decoded(tmp_path: Path) -> None:
    listed = suffixes()
    assert not {".aac", ".m4a", ".wma", ".raw"} & listed
    assert {f".{suffix}" for suffix in SUFFIXES} <= listed
    for suffix, name in SUFFIXES.items():
        (tmp_path / f"a.{suffix}").write_bytes(encoded(name))
        assert abs(read(tmp_path / f"a.{suffix}").samples.shape[1] - RATE) < 100


CELLS: list[tuple[dict[str, Any], float | str]] = [
    ({"start": 0.25, "end": 0.75}, 0.5),
    ({"offset": 0.25, "duration": 0.5}, 0.5),
    ({"start": 0.25, "duration": 0.5}, 0.5),
    ({"offset": 0.25, "end": 0.75}, 0.5),
    ({"duration": 0.5}, 0.5),
    ({"start": None, "end": None, "sampling_rate": None}, 1.0),
    ({"rate": RATE}, 1.0),
    ({"rate": 8000}, "has 16000 Hz beside rate: 8000"),
    ({"begin": 0.25}, "unknown keys begin"),
    ({"start": 0.0, "offset": 0.0}, "'start' and 'offset' of one segment"),
    ({"end": 1.0, "duration": 1.0}, "'end' and 'duration' of one segment"),
    ({"start": "soon"}, "a number of seconds"),
    ({"duration": 0.0}, "expected 0 <= start < end"),
    ({"channel": 0}, 1.0),
    ({"channel": 1}, "channel 1 of 1"),
    ({"channel": True}, "channel True of 1"),
]


@pytest.mark.parametrize("keys,answer", CELLS)
def test_every_key_of_a_cell_counts(tmp_path: Path, keys: dict[str, Any], answer: Any) -> None:
    (tmp_path / "a.wav").write_bytes(encoded("wav"))
    array = {"array": WAVE, "rate": RATE}
    for cell in ({"path": tmp_path / "a.wav"}, {"bytes": encoded("wav")}, array):
        source = {**cell, **keys}
        if isinstance(answer, str):
            if "array" in cell and keys.get("rate"):
                continue
            with pytest.raises(ReadError, match=answer):
                read(source)
        else:
            assert read(source).seconds == answer


# Resampling

RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000)


def decibels(wave: torch.Tensor) -> float:
    edge = len(wave) // 8
    return 10 * math.log10(float(wave[edge:-edge].square().mean()) / 0.5 + 1e-20)


def tone(frequency: float, rate: int) -> Sound:
    time = np.arange(rate // 4) / rate
    return Sound(np.sin(2 * np.pi * frequency * time).astype(np.float32)[None], rate)


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


# Channels


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
