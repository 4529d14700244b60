"""`--json` of every verb, completion of recipes and runs, the page of rows, the hub's metadata."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import typer
import yaml
from PIL import Image

from sensorium import __main__ as entry
from sensorium.engine.recipe import KINDS
from sensorium.modalities.messages import plural
from sensorium.scripts.app import app
from sensorium.scripts.info import complete_recipes, complete_runs

DATA = {
    "train": {"source": "json", "path": "rows.jsonl", "paths": ["image"]},
    "test": {"source": "json", "path": "rows.jsonl", "paths": ["image"], "limit": 2},
}
RECIPE: dict[str, Any] = {
    "inputs": {
        "image": {
            "modality": "image",
            "encoder": {"type": "patches", "size": 8, "patch_size": 4, "dim": 12},
        }
    },
    "tasks": {
        "digit": {"type": "classification", "input": "image", "target": "word", "data": DATA}
    },
    "train": {"steps": 1, "batch_size": 2},
}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a recipe and four pictures."""
    folder = tmp_path_factory.mktemp("json")
    rows = []
    for i, colour in enumerate(("red", "blue", "red", "blue")):
        Image.new("RGB", (8, 8), colour).save(folder / f"{i}.png")
        rows.append({"image": f"{i}.png", "word": ("one", "two")[i % 2], "note": f"<b>{i}</b>"})
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def sensorium(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sensorium", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            entry.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return sensorium


def value_of(run: Run, *words: str) -> Any:
    code, out, err = run(*words, "--json")
    assert code == 0, err
    (line,) = out.splitlines()
    return json.loads(line)


def commands() -> dict[str, Any]:
    group = typer.main.get_command(app)
    inner = group.commands["cache"].commands  # type: ignore[attr-defined]
    named = {f"cache {name}": command for name, command in inner.items()}
    return {**named, **{n: c for n, c in group.commands.items() if n != "cache"}}  # type: ignore[attr-defined]


PRINT_JSON = {"generate", "schema", "serve"}
"""Verbs that print JSON anyway, or answer requests with it."""


@pytest.mark.quick_share(2)
@pytest.mark.parametrize("name", sorted(commands()))
def test_every_verb_prints_json(name: str) -> None:
    options = [option for p in commands()[name].params for option in p.opts]
    assert ("--json" in options) != (name in PRINT_JSON)


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_argument_of_a_verb_is_explained(name: str) -> None:
    command = commands()[name]
    assert (command.help or "").strip()
    unexplained = [p.name for p in command.params if not (getattr(p, "help", None) or "").strip()]
    assert [each for each in unexplained if each != "help"] == []


def test_json_of_the_verbs(run: Run, home: Path) -> None:
    report = value_of(run, "check", "tiny.yaml")
    assert {"components", "notes", "flops", "memory", "stages", "steps"} == set(report)
    assert value_of(run, "train", "tiny.yaml", "--overwrite") == {"run": "runs/tiny"}
    scores = value_of(run, "evaluate", "runs/tiny")
    assert 0 <= scores["digit"]["accuracy"] <= 1
    assert value_of(run, "report", "runs/tiny") == {"page": "runs/tiny/report.html"}
    assert "torch" in value_of(run, "info")
    assert {"root", "stores"} == set(value_of(run, "cache", "ls"))
    assert value_of(run, "cache", "verify") == {"dropped": {}}
    assert value_of(run, "cache", "rm", "all") == {"removed": [], "nbytes": 0}


@pytest.mark.parametrize("kind", ["recipes", "papers", *map(plural, KINDS)])
def test_json_of_lists(run: Run, kind: str) -> None:
    assert value_of(run, "list", kind)
    assert kind in value_of(run, "list")


def test_recipes_and_runs_are_completed(run: Run, home: Path) -> None:
    if not (home / "runs").exists():
        run("train", "tiny.yaml")
    assert complete_runs("runs/t") == ["runs/tiny"]
    assert complete_runs("elsewhere") == []
    assert "tiny.yaml" in complete_recipes("ti")
    assert "configs/captioning/digits.yaml" in complete_recipes("configs/cap")
    assert complete_recipes("runs/") == ["runs/tiny"]
    for verb in ("check", "train", "evaluate", "generate", "rollout", "report", "look", "push"):
        first = commands()[verb].params[0]
        assert first._custom_shell_complete is not None, verb


def test_look_shows_rows_as_they_are_read(run: Run, home: Path) -> None:
    (home / "rows.jsonl").open("a").write('\n{"image": "gone.png", "word": "one", "note": ""}')
    assert value_of(run, "look", "tiny.yaml", "--limit", "5") == {"page": "look.html"}
    page = (home / "look.html").read_text()
    assert "digit: train, 5 rows" in page and "digit: test, 2 rows" in page
    assert page.count("data:image") == 6 and "gone.png" in page
    assert "&lt;b&gt;0&lt;/b&gt;" in page and "<b>0</b>" not in page
    value_of(run, "look", "tiny.yaml", "--split", "test", "--out", "one.html")
    assert "train" not in (home / "one.html").read_text().partition("<main>")[2]
    code, out, err = run("look", "tiny.yaml", "--split", "tset")
    assert (code, out, err) == (2, "", "error: look: the recipe has no split 'tset'\n")


def test_a_card_has_the_metadata_of_the_hub(run: Run, home: Path) -> None:
    run("train", "tiny.yaml", "--overwrite", "tasks.digit.data.train.limit=4")
    run("evaluate", "runs/tiny")
    data = huggingface_hub.ModelCard.load("runs/tiny/README.md").data
    assert data.library_name == "sensorium" and data.pipeline_tag == "image-classification"
    assert {"image", "sensorium"} <= set(data.tags)
    assert "accuracy" in {result.metric_type for result in data.eval_results}


def test_push_prints_what_load_takes(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        def create_repo(self, *args: Any, **options: Any) -> None:
            pass

        upload_folder = create_repo

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    if not (home / "runs").exists():
        run("train", "tiny.yaml", "tasks.digit.data.train.limit=4")
    assert value_of(run, "push", "runs/tiny", "org/name") == {"model": "hf-hub:org/name"}
    assert run("push", "nowhere", "org/name")[0] == 2
