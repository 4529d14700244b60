"""Damaged files of every format give a result, or one line that says what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sensorium.scripts import fuzz
from sensorium.scripts.fuzzing import FORMATS, Format


@pytest.mark.slow
def test_damaged_files_are_read_or_refused() -> None:
    words = [sys.executable, "-m", "sensorium.scripts.fuzz", "--cases", "300", "--seed", "1"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert {row[0] for row in rows} == set(FORMATS)
    assert all(int(row[2]) + int(row[3]) == int(row[1]) for row in rows)


@pytest.mark.parametrize("name", FORMATS)
def test_a_case_is_made_of_its_seed_and_number_alone(name: str) -> None:
    first, again = (FORMATS[name].files() for _ in range(2))
    for number in range(20):
        built = fuzz.damaged(name, number, 3, first)
        assert built == fuzz.damaged(name, number, 3, again)
    assert built != fuzz.damaged(name, number, 4, first)


def _raises(error: BaseException) -> Format:
    def read(folder: Path) -> None:
        raise error

    return Format(lambda: [{"a": b"x"}], read, (), 1.0)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (fuzz.ReadError("a", "is torn", "a whole one"), "refused"),
        (fuzz.ConfigError("data.path: no"), "refused"),
        (fuzz.ConfigError("one\ntwo"), "2 lines"),
        (fuzz.ConfigError("x" * 5000), "a line of 5000 characters"),
        (fuzz.ReadError("a", "cannot be read (MemoryError)", "it"), "too much memory"),
        (KeyError("a"), "KeyError at test_fuzz.py:read"),
        (SystemExit(3), "SystemExit at"),
        (fuzz.Slow(), "slower than"),
    ],
)
def test_what_is_no_refusal_is_noticed(
    error: BaseException, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "odd", _raises(error))
    assert fuzz.run_case("odd", {"a": b"x"}, tmp_path / "case").startswith(outcome)
