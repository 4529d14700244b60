"""Sound as programs leave it: unknown lengths, chained streams, many channels, any rate."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from sensorium.modalities.audio.read import read, suffixes
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


@pytest.mark.parametrize(("kind", "warned"), [("WAV", True), ("FLAC", False), ("AIFF", False)])
def test_six_channels_without_a_mask_are_said(kind: str, warned: bool) -> None:
    """Microphones and 5.1 look alike there; one channel would be left out without a word."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([WAVE] * 6, 1), RATE, format=kind, subtype="PCM_16")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read(buffer.getvalue())
    lines = [str(w.message) for w in caught if "six channels" in str(w.message)]
    assert bool(lines) is warned
    assert not warned or "channel: 0 to 5" in lines[0]


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


FOREIGN = {
    "MP4 or M4A": b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00",
    "AMR": b"#!AMR\n",
    "WMA": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
    "WebM": b"\x1aE\xdf\xa3",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_formats_that_are_not_decoded_are_named(kind: str) -> None:
    with pytest.raises(ReadError, match=f"is {kind}.* does not decode; expected WAV or FLAC"):
        read(FOREIGN[kind] + bytes(200))


def test_integers_of_another_byte_order() -> None:
    values = np.array([1000, -2000, 3000])
    little, big = (read((values.astype(kind), 8000)).samples for kind in ("<i2", ">i2"))
    np.testing.assert_array_equal(little, big)
