"""The command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sensorium import __main__ as entry

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`sensorium WORDS` in this process: exit code, stdout, stderr."""

    def sensorium(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sensorium", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            entry.main()
        code = end.value.code
        out, err = capsys.readouterr()
        return (code if isinstance(code, int) else 0), out, err

    return sensorium
