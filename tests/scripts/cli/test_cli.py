"""The command line as a user meets it: help, verbs, files in, JSON lines out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from sensorium import __main__ as entry
from sensorium.engine.recipe import KINDS
from sensorium.modalities.messages import plural
from sensorium.scripts.app import RENAMED, app

Run = Callable[..., tuple[int, str, str]]


VERBS = ["cache", "check", "embed", "evaluate", "generate", "info", "list", "report"]


VERBS += ["retrieve", "rollout", "schema", "train"]


HEAVY = ["matplotlib", "numpy", "torch", "transformers", "yaml"]


@pytest.mark.quick_share(4)
@pytest.mark.parametrize("words", [["--help"], *[[verb, "--help"] for verb in VERBS]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['sensorium', *{words!r}]\n"
        "from sensorium.__main__ import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        f"sys.stderr.write(repr(sorted(set({HEAVY!r}) & set(sys.modules))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]"
    assert "Usage: sensorium" in done.stdout
    if words == ["--help"]:
        assert all(verb in done.stdout for verb in VERBS)


def test_both_ways_to_start_it_are_one() -> None:
    script = Path(sys.executable).with_name("sensorium")
    ways = [[str(script)], [sys.executable, "-m", "sensorium"]]
    outs = [
        subprocess.run([*way, "list", "recipes"], capture_output=True, text=True, check=True).stdout
        for way in ways
        if Path(way[0]).exists()
    ]
    assert len(set(outs)) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["chekc"], "chekc"),
        (["check"], "recipe"),
        (["train", "tiny.yaml", "--step", "3"], "--step"),
        (["evaluate", "runs/tiny", "--limit", "0"], "--limit"),
        (["cache", "clear"], "clear"),
    ],
)
def test_wrong_usage_is_code_2(run: Run, words: list[str], expected: str) -> None:
    code, out, err = run(*words)
    assert code == 2
    assert out == ""
    assert expected in err
    assert "Traceback" not in err


def test_no_verb_is_help(run: Run) -> None:
    code, out, err = run()
    assert "Usage: sensorium" in out + err
    assert code in (0, 2)


def test_recipes_lists_what_is_shipped(run: Run) -> None:
    _, out, _ = run("list", "recipes")
    configs = Path(entry.__file__).parent / "configs"
    assert len(out.splitlines()) == len(list(configs.rglob("*.yaml")))
    for line in out.splitlines():
        path, _, result = line.partition("  ")
        head = (configs.parent / path).read_text(encoding="utf-8").splitlines()[1]
        assert head == f"# {result}"


def test_info_has_versions_and_devices(run: Run, home: Path) -> None:
    _, out, _ = run("info")
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}
    assert rows["torch"] == version("torch")
    assert rows["sensorium"] == version("sensorium")
    assert "cores" in rows["cpu"]
    assert rows["cache"] == str(home / "cache")
    assert {"python", "system", "devices", "timm"} <= set(rows)


def test_schema_is_json(run: Run) -> None:
    _, out, _ = run("schema")
    result = json.loads(out)
    assert {"inputs", "tasks", "train", "extends"} <= set(result["properties"])


def test_check_prints_the_way(run: Run) -> None:
    code, out, err = run("check", "tiny.yaml", "train.batch_size=2")
    assert code == 0, err
    assert "inputs.image.connector" in out
    assert "a step of answer" in out


@pytest.mark.parametrize("words", [[], ["--data"]])
def test_check_tries_the_output_folder_first(run: Run, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "recipe.yaml").write_text("")
    for folder, text in (("file/run", "is a file"), ("other", "is no run's folder")):
        out = str(tmp_path / folder)
        code, _, err = run("check", "gone.yaml", "--out", out, *words)  # before the recipe is read
        assert code == 2 and err.count("\n") == 1 and text in err
    code, _, err = run("check", "tiny.yaml", "--out", str(tmp_path / "a" / "b"), *words)
    assert code == 0, err
    assert not (tmp_path / "a").exists()


def test_train_writes_a_run(run: Run, trained: Path) -> None:
    for name in ("recipe.yaml", "metrics.jsonl", "model.safetensors", "README.md"):
        assert (trained / name).is_file()
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert {"step", "task", "loss", "lr", "samples_per_s"} <= set(lines[0])
    assert "sensorium train tiny.yaml" in (trained / "README.md").read_text()


def test_train_prints_its_folder_and_begins_anew_on_request(run: Run, trained: Path) -> None:
    code, out, _ = run("train", "tiny.yaml", "--overwrite", "train.steps=1")
    assert code == 0
    assert out.splitlines() == ["runs/tiny"]
    assert len((trained / "metrics.jsonl").read_text().splitlines()) == 1
    assert yaml.safe_load((trained / "recipe.yaml").read_text())["train"]["steps"] == 1
    code, out, err = run("train", "tiny.yaml", "--quiet", "--out", "runs/other")
    assert (code, out, err) == (0, "", "")
    assert (Path("runs/other") / "model.safetensors").is_file()


def test_check_takes_a_run(run: Run, trained: Path) -> None:
    code, out, err = run("check", str(trained))
    assert code == 0, err
    assert "a step of answer" in out


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.filterwarnings("ignore:cache")  # that a record was dropped
def test_the_cache_is_listed_verified_and_removed(run: Run, home: Path) -> None:
    frozen = ["inputs.image.encoder.freeze=true", "train.steps=1"]
    code, _, err = run("train", "tiny.yaml", *frozen, "--out", "runs/frozen", "--overwrite")
    assert code == 0, err
    _, out, _ = run("cache", "ls")
    head, *stores, root = out.splitlines()
    assert root == str(home / "cache")
    assert head.split() == ["store", "level", "records", "MB", "of"]
    assert len(stores) == 1
    identity, level, records, *_ = stores[0].split()
    assert (level, int(records)) == ("features", 8)
    assert "Patches" in stores[0]
    code, out, _ = run("cache", "verify")
    assert (code, out.splitlines()[-1]) == (0, "0 corrupt records in 1 stores")
    shards = [p for p in (home / "cache").rglob("*") if p.is_file() and p.stat().st_size > 500]
    spoilt = max(shards, key=lambda p: p.stat().st_size)
    data = bytearray(spoilt.read_bytes())
    data[len(data) // 2] ^= 0xFF
    spoilt.write_bytes(bytes(data))
    _, out, _ = run("cache", "verify")
    assert not out.splitlines()[-1].startswith("0 corrupt")
    code, out, err = run("cache", "rm", "no-such-id")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "no-such-id" in err
    _, out, _ = run("cache", "rm", identity, "--older-than", "1")
    assert out.startswith("removed 0 stores")
    _, out, _ = run("cache", "rm", identity)
    assert out.startswith("removed 1 stores")
    _, out, _ = run("cache", "ls")
    assert out.splitlines() == [root]


def test_report_is_one_page(run: Run, trained: Path) -> None:
    code, out, err = run("report", str(trained))
    assert code == 0, err
    page = Path(out.strip())
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")


@pytest.mark.slow
def test_the_whole_way_as_processes(home: Path, tmp_path: Path) -> None:
    """check, train, evaluate, generate: each a process of its own."""

    def sensorium(*words: str) -> str:
        command = [sys.executable, "-m", "sensorium", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=home)
        assert done.returncode == 0, done.stderr
        return done.stdout

    folder = str(tmp_path / "whole")
    assert "a step of answer" in sensorium("check", "tiny.yaml")
    assert sensorium("train", "tiny.yaml", "--out", folder).strip() == folder
    assert "exact_match" in sensorium("evaluate", folder)
    assert _lines(sensorium("generate", folder, "a.png", "parity=odd"))[0]["image"] == "a.png"


OLD_WORDS = [
    ([verb, old] if verb else [old], f"{old} is called {new} now")
    for verb, table in RENAMED.items()
    for old, new in table.items()
]


@pytest.mark.parametrize(("words", "line"), OLD_WORDS, ids=lambda value: str(value)[:40])
def test_an_old_option_is_told_its_name(run: Run, words: list[str], line: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert line in err


def test_the_new_options_exist() -> None:
    for verb, table in RENAMED.items():
        if verb:
            command = typer.main.get_command(app).commands[verb]
            known = {
                name for option in command.params for name in (*option.opts, *option.secondary_opts)
            }
            assert set(table.values()) <= known
            assert not set(table) & known


@pytest.mark.parametrize("kind", [*map(plural, KINDS)])
def test_list_names_the_parts_of_a_kind(run: Run, kind: str) -> None:
    code, out, err = run("list", kind)
    assert code == 0, err
    assert all(":" in line for line in out.splitlines())
    assert kind in run("list")[1].splitlines()


def test_a_wrong_kind_is_one_line(run: Run) -> None:
    code, _, err = run("list", "encodrs")
    assert code == 2
    assert err == "error: list: there is no 'encodrs'; did you mean 'encoders'?\n"
