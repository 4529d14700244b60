"""Recipes with one mistake each: one line on stderr, with its place and the cure, exit code 2."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sensorium import __main__ as entry
from sensorium.tests.engine.recipe.mistake_cases import (
    BASE,
    CONNECTOR,
    ENCODER,
    GONE,
    MISSPELT,
    NAMES,
    TRAIN,
    VALUES,
    Case,
    edited,
    fails,
)

AGREEMENT: dict[str, Case] = {
    "a prompt without the stream": (
        {"tasks.caption.prompt": "Describe:"},
        "inputs.image",
        ("no task uses it", "name it in a prompt"),
    ),
    "a prompt with an unknown stream": (
        {"tasks.caption.prompt": "<imgae> Describe:"},
        "tasks.caption",
        ("'imgae'", "'image'"),
    ),
    "half a brace": ({"tasks.caption.prompt": "<image> {x"}, "tasks.caption.prompt", ("{{",)),
    "a target without column": (
        {"tasks.caption.target": "word"},
        "tasks.caption.target",
        ("'word'", "columns"),
    ),
    "a stream nobody uses": (
        {"inputs.other": BASE["inputs"]["image"]},
        "inputs.other",
        ("no task uses it", "take it out"),
    ),
    "no decoder": ({"backbone": GONE}, "tasks.caption", ("`backbone:`", "tiny-llama")),
    "no tokenizer": ({"backbone.tokenizer": GONE}, "backbone.tokenizer", ("bpe", "bytes")),
    "no encoder": ({ENCODER: GONE}, ENCODER, ("required", "type")),
    "no type": ({f"{ENCODER}.type": GONE}, f"{ENCODER}.type", ("required", "str")),
    "no size": ({f"{ENCODER}.size": GONE}, f"{ENCODER}.size", ("required", "int")),
    "no tasks": ({"tasks": {}}, "tasks", ("at least one",)),
    "widths apart": (
        {CONNECTOR: GONE},
        "inputs.image",
        ("16", "32", "patches", "backbone", "connector: linear"),
    ),
    "weights a/b": (
        {f"{ENCODER}.weights": "org/model"},
        f"{ENCODER}.weights",
        ("hf-hub:org/model", "./org/model"),
    ),
    "weights of no file": (
        {f"{ENCODER}.weights": "gone.safetensors"},
        f"{ENCODER}.weights",
        ("'gone.safetensors'", "pretrained, none"),
    ),
    "weights where there are none": (
        {f"{ENCODER}.weights": "pretrained"},
        f"{ENCODER}.weights",
        ("patches", "weights: none"),
    ),
    "no file of data": (
        {TRAIN: {"source": "json", "path": "gone.jsonl", "holdout": 0.2}},
        TRAIN,
        ("gone.jsonl", "does not exist"),
    ),
    "no folder of data": (
        {TRAIN: {"source": "imagefolder", "path": "gone", "holdout": 0.2}},
        TRAIN,
        ("gone", "does not exist"),
    ),
    "best of no task": (
        {"train.validate": {"every": 1, "metric": "captoin/words"}},
        "train.validate.metric",
        ("'captoin/words'", "task/metric", "'caption'"),
    ),
    "best without task": (
        {"train.validate": {"every": 1, "metric": "words"}},
        "train.validate.metric",
        ("'words'", "task/metric"),
    ),
    "validation on nothing": (
        {"train.validate": {"every": 1}, f"{TRAIN}.holdout": 0},
        "tasks.caption.data",
        ("data.validation", "holdout: 0.1"),
    ),
    "a sampler without column": (
        {"train.sampler": "length"},
        "train.sampler.column",
        ("type: length", "column"),
    ),
    "a column without sampler": (
        {"train.sampler": {"column": "word"}},
        "train.sampler.column",
        ("'word'", "type: length"),
    ),
    "by an unknown column": (
        {"train.sampler": {"type": "balanced", "column": "wrod"}},
        "train.sampler.column",
        ("'wrod'", "'word'", "caption"),
    ),
    "nothing that trains": (
        {f"{ENCODER}.freeze": True, f"{CONNECTOR}.freeze": True, "backbone.freeze": True},
        "train",
        ("nothing trains",),
    ),
}


CASES = {
    f"{group}-{name}": case
    for group, cases in (
        ("misspelt", MISSPELT),
        ("value", VALUES),
        ("name", NAMES),
        ("agreement", AGREEMENT),
    )
    for name, case in cases.items()
}


TEXTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "a key twice": ("train: {steps: 1}\ntrain: {steps: 2}\n", ("line 2", "'train'", "twice")),
    "a key that is a number": ("inputs:\n  1: {}\n", ("line 2", "the key 1", "quotes")),
    "an open bracket": ("inputs: {image: [\n", ("line 2", "expected YAML")),
    "a tab": ("inputs:\n\timage: {}\n", ("line 2", "expected YAML")),
    "a list": ("- inputs\n", ("list", "expected keys")),
    "nothing": ("# only a comment\n", ("NoneType", "expected keys")),
    "an object": ("inputs: !!python/object:os.path {}\n", ("line 1", "expected YAML")),
    "a chain that ends in nothing": (
        "extends: extended.yaml\n",
        ("base.yaml", "extended.yaml extends", "no such file"),
    ),
    "a circle": ("extends: recipe.yaml\n", ("recipe.yaml extends recipe.yaml", "circle")),
    "a value of no type": ("train: {steps: !!int x}\n", ("line 1", "found 'x'", "int")),
    "no float": ("train:\n  lr: !!float x\n", ("line 2", "found 'x'", "float")),
    "no truth": ("train: {flag: !!bool maybe}\n", ("line 1", "'maybe'", "bool")),
    "no date": ("train: {flag: !!timestamp maybe}\n", ("line 1", "'maybe'", "timestamp")),
    "a number of 5000 digits": (f"train: {{steps: {'9' * 5000}}}\n", ("line 1", "999", "int")),
    "nested too deep": (f"a: {'[' * 3000}{']' * 3000}\n", ("nested too deep",)),
    "an unknown tag": ("a: !!python/object:os.system x\n", ("line 1", "could not determine")),
    "a key that is a list": ("? [a, b]\n: 1\n", ("line 1", "is not text")),
    "a control character": ("a: \x01\n", ("not YAML", "expected YAML")),
    "a list of bases": ("extends: [a.yaml, b.yaml]\n", ("extends", "path of one recipe")),
    "a base that is not there": ("extends: gone.yaml\n", ("gone.yaml", "no such file")),
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_one_mistake_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edits, place, cure = CASES[name]
    Path("recipe.yaml").write_text(edited(edits), encoding="utf-8")
    line = fails(monkeypatch, capsys, "check", "recipe.yaml")
    assert line.startswith((f"{place}: ", f"{place}.")), line
    for words in cure:
        assert words in line


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_that_is_no_recipe(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, cure = TEXTS[name]
    Path("extended.yaml").write_text("extends: base.yaml\n", encoding="utf-8")
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    line = fails(monkeypatch, capsys, "check", "recipe.yaml")
    for words in cure:
        assert words in line


OVERRIDES = {
    "no equals": ("train.steps", "train.steps", ("no '='", "key.key=value")),
    "no key": ("=3", "=3", ("key.key=value",)),
    "below a number": ("train.steps.more=3", "train.steps.more", ("steps is 1", "no keys")),
    "misspelt": ("train.stpes=3", "train.stpes", ("'steps'",)),
    "wrong type": ("train.steps=few", "train.steps", ("'few' (str)", "int >= 0")),
    "no YAML": ("train.task_weights={a: [", "train.task_weights", ("expected dict",)),
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_an_override_that_is_none(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, place, cure = OVERRIDES[name]
    Path("recipe.yaml").write_text(edited({}), encoding="utf-8")
    line = fails(monkeypatch, capsys, "check", "recipe.yaml", text)
    assert line.startswith(place)
    for words in cure:
        assert words in line


def test_the_base_itself_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    from sensorium.engine.recipe import parse_recipe
    from sensorium.engine.training import check

    assert "a step of caption" in str(check(parse_recipe(BASE)))


def test_each_of_several_mistakes_has_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("recipe.yaml").write_text(edited({"train.step": 1, "cache": {"feature": 1}}))
    monkeypatch.setattr(sys, "argv", ["sensorium", "check", "recipe.yaml"])
    with pytest.raises(SystemExit) as end:
        entry.main()
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert [line.split(": ")[1] for line in lines] == ["train.step", "cache.feature"]
