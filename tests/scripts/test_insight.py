"""The verbs that look into models, by the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sensorium import __main__ as entry
from sensorium.tests.engine.evaluation.analyses.analyzed import recipe


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("insight")
    sections = recipe()
    sections.pop("backbone")
    sections["tasks"] = {"digit": sections["tasks"]["digit"]}
    sections["inputs"]["image"].pop("connector")
    sections["train"]["steps"] = 3
    (folder / "probe.yaml").write_text(yaml.safe_dump(sections))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield folder


def run(*words: str) -> int:
    """`sensorium WORDS`, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["sensorium", *words])
        try:
            code = entry.main()
        except SystemExit as error:
            code = error.code
    return int(code or 0)


@pytest.mark.slow
def test_layers_of_several_encoders_in_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyze", "probe.yaml", "logme", "inputs.image.encoder.name=test_vit,test_resnet"]
    assert run(*words, "--limit", "30", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} == {"test_vit", "test_resnet"}
    assert all(row.keys() == {"name", "layer", "width", "logme"} for row in rows)
    assert run(*words, "--limit", "30") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "layer", "width", "logme"]
    assert len(lines) == len(rows) + 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["logm"], "no analysis is called 'logm'; did you mean 'logme'"),
        (["logme", "targe=word"], "targe: logme has no such option; did you mean 'target'"),
        (["logme", "--split", "nothing"], "no split 'nothing'"),
        (["logme", "target"], "found no '=', expected KEY=VALUE"),
    ],
)
def test_mistakes_of_analyze(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("analyze", "probe.yaml", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def swept(home: Path) -> list[dict[str, object]]:
    words = ["sweep", "probe.yaml", "inputs.image.encoder.name=test_vit,test_resnet"]
    assert run(*words, "--out", "runs/swept", "--quiet") == 0
    rows: list[dict[str, object]] = json.loads(Path("runs/swept/sweep.json").read_text())
    return rows


@pytest.mark.slow
def test_a_sweep_tables_one_run_for_each_value(swept: list[dict[str, object]]) -> None:
    key = "inputs.image.encoder.name"
    assert [row["cell"] for row in swept] == [{key: "test_vit"}, {key: "test_resnet"}]
    assert [Path(str(row["run"])).name for row in swept] == ["name=test_vit", "name=test_resnet"]
    assert all("digit/accuracy" in row["scores"] for row in swept)  # type: ignore[operator]


@pytest.mark.slow
def test_a_finished_cell_is_not_run_again(
    swept: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran = []

    def count(recipe: object, folder: Path, *_: object) -> dict[str, object]:
        ran.append(folder.name)
        return {"digit/accuracy": 0.0}

    monkeypatch.setattr(sys.modules["sensorium.scripts.insight.sweep"], "train_and_evaluate", count)
    words = ["sweep", "probe.yaml", "--out", "runs/swept", "--json"]
    names = "inputs.image.encoder.name=test_vit,test_resnet"
    assert run(*words, names) == 0
    assert json.loads(capsys.readouterr().out) == swept
    assert ran == []
    assert run(*words, names, "train.steps=4,3") == 0
    assert len(ran) == 2  # those of four steps


def test_each_word_has_a_map(
    swept: list[dict[str, object]], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    Image.new("RGB", (20, 20), "grey").save(home / "f.png")
    words = ["explain", str(swept[0]["run"]), "--task", "digit", "--image", "f.png"]
    methods = ["--method", "gradient", "--method", "rollout"]
    assert run(*words, *methods, "--steps", "3", "--out", "maps.html", "--json") == 0
    value = json.loads(capsys.readouterr().out)
    (unit,) = value["units"]
    signal = value["signals"]["image"]
    assert signal["maps"].keys() == {"gradient", "rollout"}
    rows, columns = signal["grid"]
    assert [len(m) for m in signal["maps"]["gradient"]] == [rows]
    assert len(signal["maps"]["gradient"][0][0]) == columns
    page = (home / "maps.html").read_text()
    assert unit["text"] in page
    assert page.count("<svg") == 4  # a map and the curves, of each method


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image"], "--image: found no value"),
        (["a.png", "b.png"], "found 2 rows, expected one"),
        (["--sound", "a.wav"], "digit takes no 'sound'"),
        (["a.png", "--method", "gradiant"], "did you mean 'gradient'"),
    ],
)
def test_mistakes_of_explain(
    swept: list[dict[str, object]],
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("explain", str(swept[0]["run"]), *words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "cells"),
    [
        ([], [{}]),
        (["a=1,2", "b=x"], [{"a": "1", "b": "x"}, {"a": "2", "b": "x"}]),
        (["a=[1,2]"], [{"a": "[1,2]"}]),
        (["a={x: 1, y: 2},none"], [{"a": "{x: 1, y: 2}"}, {"a": "none"}]),
        (["a='x,y'"], [{"a": "'x,y'"}]),
    ],
)
def test_commas_part_alternatives(texts: list[str], cells: list[dict[str, str]]) -> None:
    from sensorium.engine.evaluation import grid_cells

    assert list(grid_cells(texts)) == cells
