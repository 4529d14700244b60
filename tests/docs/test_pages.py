"""Every block of code of README and of the site is run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import nibabel
import numpy as np
import pytest
import soundfile
from PIL import Image

from sensorium.engine.recipe import parse, parse_recipe, plan_recipe, schema
from sensorium.scripts.docs.__main__ import generated_pages
from sensorium.tests.docs.pages import PAGES, ROOT, blocks, check_command, commands, fragments
from sensorium.tests.docs.pages import run_page as run

LANGUAGES = {"python", "yaml", "bash", "text", "{toctree}", "{include}", ""}
RUN = [p for p in PAGES if p.name != "papers.md" and any(b.language == "bash" for b in blocks(p))]
QUICK = [p for p in PAGES if p not in RUN and any(b.language == "python" for b in blocks(p))]


def name(page: Path) -> str:
    return page.relative_to(ROOT).with_suffix("").as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_could_be_run(page: Path) -> None:
    """Python compiles, commands have these options, pieces of recipes fit the schema."""
    for block in blocks(page):
        assert block.language in LANGUAGES, f"line {block.line}: {block.language}"
        if block.language == "python":
            compile(block.text, f"{page.name}, line {block.line}", "exec")
        elif block.language == "bash":
            for words in commands(block):
                check_command(words)
        elif block.language == "yaml":
            parse(block.text, page.name)


@pytest.fixture(scope="module")
def recipe_schema() -> dict[str, object]:
    return schema()


@pytest.mark.parametrize("page", [p for p in PAGES if fragments(p)], ids=name)
def test_pieces_of_recipes_fit(page: Path, recipe_schema: dict[str, object]) -> None:
    for piece in fragments(page):
        if "tasks" in piece and "extends" not in piece:
            plan_recipe(parse_recipe(piece))
        elif set(piece) <= {"inputs", "backbone", "stages", "callbacks", "train", "env", "cache"}:
            jsonschema.validate({"extends": "base.yaml", **piece}, recipe_schema)
        else:
            assert set(piece) <= {"encoder", "connector", "data"}, piece


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, with a cache of its own; modules of a page are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    for module in ("my_file", "my_robot"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    yield tmp_path
    for module in ("my_file", "my_robot"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize("page", QUICK, ids=name)
def test_a_page_runs(page: Path, home: Path) -> None:
    run(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name)
def test_a_page_with_commands_runs(page: Path, home: Path) -> None:
    if page.name == "README.md":
        add_files(home)
    run(page)


def add_files(folder: Path) -> None:
    """Write the files of a user that README speaks of."""
    (folder / "photos").mkdir()
    for file in ("picture.png", "a.png", "b.png", "photos/a.png"):
        Image.new("RGB", (64, 64), "red").save(folder / file)
    soundfile.write(folder / "recording.wav", np.zeros(16_000), 16_000)
    rng = np.random.default_rng(0)
    for name in ("commands", "dictations"):
        (folder / f"{name}.jsonl").write_text("".join(map(_line(name, folder, rng), range(4))))


def _line(name: str, folder: Path, rng: np.random.Generator) -> Callable[[int], str]:
    """Return what writes a row's files and returns its line."""

    def write(index: int) -> str:
        sound, volume = f"{name}-{index}.wav", f"{index}.nii.gz"
        soundfile.write(folder / sound, 0.1 * rng.standard_normal(8_000), 16_000)
        if name == "commands":
            cells = {"audio": sound, "action": rng.random((12, 2)).tolist()}
        else:
            values = rng.random((16, 16, 16), dtype=np.float32)
            nibabel.save(
                nibabel.Nifti1Image(values, np.diag([8.0, 8.0, 8.0, 1.0])), folder / volume
            )
            cells = {"audio": sound, "volume": volume}
        return json.dumps(cells) + "\n"

    return write


@pytest.mark.slow
def test_every_part_and_verb_is_in_the_reference() -> None:
    from sensorium.engine.recipe import registered
    from sensorium.scripts.app import app

    pages = generated_pages()
    for kind in ("connector", "encoder", "task", "source", "backbone"):
        text = pages[f"reference/{kind}s.md"]
        assert all(f"## {part}\n" in text for part in registered(kind))
    for command in app.registered_commands:
        assert f"## {command.name}\n" in pages["reference/commands.md"]


def test_every_page_is_in_the_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    for page in PAGES:
        if page.parts[-2] != "sensorium" and page.name not in ("README.md", "index.md"):
            path = page.relative_to(ROOT / "docs").with_suffix("").as_posix()
            assert f"\n{path}\n" in index or path.startswith("coverage"), path
