"""A module that is run by `python -m` has a help, and takes no option for a file's name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from sensorium.scripts.docs import papers, screenshots
from sensorium.scripts.docs.__main__ import main as pages

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PARSERS = ("typer.run(", "argparse.", "runpy.run_module(")


def modules() -> list[Path]:
    """Return the files of scripts/ that do something when they are run."""
    files = sorted(SCRIPTS.rglob("*.py"))
    return [path for path in files if 'if __name__ == "__main__"' in path.read_text("utf-8")]


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(SCRIPTS).as_posix())
def test_arguments_are_parsed(path: Path) -> None:
    """By a library that knows `--help`."""
    text = path.read_text("utf-8")
    assert any(parser in text for parser in PARSERS), path
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("main", [pages, papers.main, screenshots.main])
def test_help_writes_nothing(main: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = Typer()
    app.command()(main)  # type: ignore[arg-type]
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0 and "Usage" in result.output
    assert not list(tmp_path.iterdir())
