"""The blocks of code of a page, and what runs them: as they stand, in order, in a folder."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
import yaml

from sensorium import __main__ as entry
from sensorium.engine.recipe import load_recipe
from sensorium.scripts.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
PAGES = [p for p in PAGES if not {"_build", "reference"} & set(p.relative_to(ROOT).parts)]
BLOCK = re.compile(r"(?:^<!-- ([^\n]+) -->\n)?^```(\{?[\w-]*\}?)[^\n]*\n(.*?)^```", re.M | re.S)
STEPS, ROWS = 3, 24


@dataclass(frozen=True)
class Block:
    """A block of code. mark: what a comment before it says: `file: NAME`, `fails`,
    `checked`, or `with: key=value ...`, options of training that make it short here."""

    mark: str
    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else None


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    text = page.read_text("utf-8")
    return [
        Block(m[1] or "", m[2], m[3], text.count("\n", 0, m.start()) + 1)
        for m in BLOCK.finditer(text)
    ]


def commands(block: Block) -> Iterator[list[str]]:
    """Yield the commands of a block as words, without comments."""
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s&&\s", line):
            words = shlex.split(part, comments=True)
            if words:
                yield words


def check_command(words: list[str]) -> None:
    """Assert that a command could be run: a verb with its options, an extra, a target, a module."""
    match words:
        case ["sensorium", verb, *rest]:
            group = typer.main.get_command(app)
            command = group.commands[verb]  # type: ignore[attr-defined]
            while hasattr(command, "commands"):
                command = command.commands[rest.pop(0)]
            with contextlib.suppress(SystemExit):
                command.make_context(verb, rest)
        case ["pip", "install", *names]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
            for extra in re.findall(r"sensorium\[([\w,]+)\]", " ".join(names)):
                assert set(extra.split(",")) <= set(extras["optional-dependencies"]), extra
        case ["make", *targets]:
            known = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
            assert {t for t in targets if "=" not in t} <= set(known), targets
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module), module
        case ["docker", "build" | "run", *rest]:
            arguments = re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text("utf-8"), re.M)
            build_args = [value for key, value in pairwise(rest) if key == "--build-arg"]
            assert {each.partition("=")[0] for each in build_args} <= set(arguments), build_args
        case ["source", _]:
            pass
        case _:
            raise AssertionError(f"a page may not say: {' '.join(words)}")


def limits(recipe: str) -> list[str]:
    """Return options of training that leave `ROWS` rows of each split of a recipe."""
    return [
        f"tasks.{task}.data.{split}.limit={ROWS}"
        for task, section in load_recipe(recipe).tasks.items()
        for split, rows in section.data.items()
        if not rows.held_out
    ]


def run_command(words: list[str], block: Block) -> None:
    """Run a verb in this process. Training is cut to `STEPS` steps; a block that is marked `fails`
    has to end with code 2 in one line, one that is marked `checked` needs what is not here."""
    check_command(words)
    if words[0] != "sensorium" or block.mark == "checked":
        return
    words = words[1:]
    if words[0] == "train" and block.mark != "fails":
        extra = block.mark.removeprefix("with: ").split() if block.mark.startswith("with: ") else []
        words = [*words, f"train.steps={STEPS}", *limits(words[1]), *extra]
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["sensorium", *words]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            entry.main()
        code: Any = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = argv
    if block.mark == "fails":
        assert code == 2 and err.getvalue().startswith("error: "), (words, code, err.getvalue())
        assert err.getvalue().count("\n") == 1
    else:
        assert code == 0, (words, err.getvalue())
    run_command.error = err.getvalue()  # type: ignore[attr-defined]


def run_page(page: Path) -> None:
    """Run every block of a page in the current folder: files are written, Python and verbs run;
    after a command that fails, a block of text is its message."""
    names: dict[str, Any] = {"__name__": "__page__"}
    failed = False
    for block in blocks(page):
        place = f"{page.name}, line {block.line}"
        try:
            if block.file is not None:
                Path(block.file).write_text(block.text, "utf-8")
            elif block.language == "python":
                code = compile(block.text, place, "exec")
                if block.mark != "checked":
                    with contextlib.redirect_stdout(io.StringIO()):
                        exec(code, names)
            elif block.language == "bash":
                for words in commands(block):
                    run_command(words, block)
            elif block.language == "text" and failed:
                assert run_command.error == block.text, place  # type: ignore[attr-defined]
        except Exception as error:
            error.add_note(place)
            raise
        failed = block.mark == "fails" and block.language == "bash"


def fragments(page: Path) -> list[dict[str, Any]]:
    """Return the pieces of recipes on a page that are no files."""
    return [
        yaml.safe_load(block.text)
        for block in blocks(page)
        if block.language == "yaml" and block.file is None
    ]
