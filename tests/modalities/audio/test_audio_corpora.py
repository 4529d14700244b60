"""LibriSpeech's folders and Common Voice's tables, in small."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sensorium.modalities.audio.datasets.corpora import CommonVoice, LibriSpeech
from sensorium.modalities.audio.read import read
from sensorium.modalities.base import ReadError

TSV = "client_id\tpath\tsentence\tage\n"


def write(path: Path, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(round(seconds * 8000)), 8000)


@pytest.fixture
def libri(tmp_path: Path) -> Path:
    for split, speaker in (("dev-clean", "84"), ("test-other", "7")):
        folder = tmp_path / split / speaker / "121550"
        for number in range(2):
            write(folder / f"{speaker}-121550-000{number}.flac", 0.5 + number)
        (folder / f"{speaker}-121550.trans.txt").write_text(
            f"{speaker}-121550-0000 BUT WITH FULL\n{speaker}-121550-0001 IT'S {speaker}\n"
        )
    return tmp_path


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    write(tmp_path / "clips/a.mp3")
    write(tmp_path / "clips/b.mp3", 1.0)
    (tmp_path / "test.tsv").write_text(
        TSV + 'c1\ta.mp3\t"Hello there, he said.\ttwenties\nc2\tb\tÉté\t\n'
    )
    return tmp_path


def test_librispeech_rows(libri: Path) -> None:
    source = LibriSpeech(path=str(libri), split="dev-clean")
    assert len(source) == 2
    row = source[1]
    assert tuple(row) == source.columns
    assert (row["text"], row["words"], row["seconds"]) == ("IT'S 84", 2, 1.5)
    assert (row["speaker"], row["chapter"]) == ("84", "121550")
    assert read(row["audio"]).seconds == 1.5
    assert source.key(0) == "84/121550/84-121550-0000.flac"
    lower = LibriSpeech(path=str(libri), lower=True)
    assert [lower[i]["text"] for i in (0, 1, 3)] == ["but with full", "it's 84", "it's 7"]
    assert len({source.fingerprint(), lower.fingerprint()}) == 2


def test_common_voice_rows(voices: Path) -> None:
    source = CommonVoice(path=str(voices), split="test")
    assert tuple(source[0]) == source.columns
    assert source[0]["text"] == '"Hello there, he said.'
    assert (source[0]["client_id"], source[0]["age"], source[0]["words"]) == ("c1", "twenties", 4)
    assert read(source[1]["audio"]).seconds == pytest.approx(1.0, abs=0.2)
    assert source[1]["seconds"] == pytest.approx(1.0, abs=0.2)
    assert source[1]["text"] == "Été"
    (voices / "clip_durations.tsv").write_text("clip\tduration[ms]\nb.mp3\t1234\n")
    timed = CommonVoice(path=str(voices), split="test")
    assert timed[1]["seconds"] == 1.234
    assert math.isnan(timed[0]["seconds"])


def test_a_missing_or_broken_file_is_a_row_that_read_reports(libri: Path) -> None:
    folder = libri / "dev-clean/84/121550"
    (folder / "84-121550-0000.flac").unlink()
    (folder / "84-121550-0001.flac").write_bytes(b"no sound at all")
    source = LibriSpeech(path=str(libri), split="dev-clean")
    for index, wrong in ((0, "No such file"), (1, "no sound")):
        assert math.isnan(source[index]["seconds"])
        assert source.cell_key(index, "audio")
        with pytest.raises(ReadError, match=wrong):
            read(source[index]["audio"])


def test_a_changed_file_has_another_name_in_the_caches(voices: Path) -> None:
    before = CommonVoice(path=str(voices), split="test")
    names = before.cell_key(0, "audio"), before.fingerprint()
    os.utime(voices / "clips/a.mp3", (1, 1))
    after = CommonVoice(path=str(voices), split="test")
    assert before.cell_key(0, "text") != before.cell_key(1, "text")
    assert after.cell_key(0, "audio") != names[0]
    assert after.fingerprint() != names[1]
    assert after.cell_key(1, "audio") == before.cell_key(1, "audio")


def test_what_is_no_corpus_is_named(libri: Path, voices: Path) -> None:
    with pytest.raises(ValueError, match=r"split: found no folder .*holds .*dev-clean"):
        LibriSpeech(path=str(libri), split="dev")
    with pytest.raises(ValueError, match=r"path: found no folder"):
        LibriSpeech(path=str(libri / "nowhere"))
    with pytest.raises(ValueError, match=r"path: found no \*.trans.txt"):
        LibriSpeech(path=str(voices / "clips"))
    (libri / "dev-clean/84/121550/84-121550.trans.txt").write_text("84-121550-0000\n")
    with pytest.raises(ValueError, match=r"line 1, expected speaker-chapter-number"):
        LibriSpeech(path=str(libri), split="dev-clean")
    with pytest.raises(ValueError, match=r"split: found no .*train.tsv, expected .*: test"):
        CommonVoice(path=str(voices), split="train")
    (voices / "dev.tsv").write_text("name\tsentence\na\tb\n")
    with pytest.raises(ValueError, match=r"no column 'path' in"):
        CommonVoice(path=str(voices), split="dev")
    (voices / "dev.tsv").write_text(TSV + "c1\ta.mp3\n")
    with pytest.raises(ValueError, match=r"another width in .*line 2, expected 4"):
        CommonVoice(path=str(voices), split="dev")
    (voices / "dev.tsv").write_text(TSV)
    with pytest.raises(ValueError, match=r"split: found no rows"):
        CommonVoice(path=str(voices), split="dev")
