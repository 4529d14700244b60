"""Recipes with one mistake each: one line on stderr, with its place and the cure, exit code 2."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sensorium import __main__ as entry

BASE: dict[str, Any] = yaml.safe_load("""
inputs:
  image:
    modality: image
    encoder: {type: patches, size: 8, patch_size: 4, dim: 16}
    connector: {type: mlp}
backbone:
  type: causal
  name: tiny-llama
  tokenizer: bytes
  weights: none
  options: {hidden_size: 32, intermediate_size: 32, num_hidden_layers: 1}
tasks:
  caption:
    type: captioning
    prompt: "<image> Describe:"
    target: "{word}"
    max_new_tokens: 4
    data:
      train: {source: digits, split: train, limit: 12, holdout: 0.25}
      test: {source: digits, split: test, limit: 4}
train: {steps: 1, batch_size: 4}
""")
GONE = object()
TIMM = {"type": "timm", "name": "vit_tiny_patch16_224", "weights": "none"}
DIGIT = {"type": "classification", "input": "image", "target": "label"}
DIGITS = {"train": {"source": "digits", "split": "train", "limit": 40}}
ENCODER = "inputs.image.encoder"
CONNECTOR = "inputs.image.connector"
TRAIN = "tasks.caption.data.train"

Case = tuple[dict[str, Any], str, tuple[str, ...]]

MISSPELT: dict[str, Case] = {
    "a room": ({"inptus": {}}, "inptus", ("did you mean 'inputs'",)),
    "a stream's key": ({"inputs.image.conector": "mlp"}, "inputs.image.conector", ("'connector'",)),
    "an encoder's": ({f"{ENCODER}.patchsize": 4}, f"{ENCODER}.patchsize", ("'patch_size'",)),
    "a connector's": ({f"{CONNECTOR}.hiden": 3}, f"{CONNECTOR}.hiden", ("'hidden'",)),
    "a decoder's": ({"backbone.tokeniser": "bpe"}, "backbone.tokeniser", ("'tokenizer'",)),
    "a configuration's": (
        {"backbone.options.hiden_size": 32},
        "backbone.options.hiden_size",
        ("'hidden_size'",),
    ),
    "a tokenizer's": (
        {"backbone.tokenizer": {"type": "bpe", "sise": 300}},
        "backbone.tokenizer.sise",
        ("'size'",),
    ),
    "a task's": ({"tasks.caption.promt": "x"}, "tasks.caption.promt", ("'prompt'",)),
    "a required one": (
        {"tasks.caption.promt": "<image>", "tasks.caption.prompt": GONE},
        "tasks.caption.promt",
        ("'prompt'",),
    ),
    "a source's": ({f"{TRAIN}.spilt": "train"}, f"{TRAIN}.spilt", ("'split'",)),
    "training's": ({"train.step": 3}, "train.step", ("'steps'",)),
    "validation's": ({"train.validate": {"evry": 3}}, "train.validate.evry", ("'every'",)),
    "train.validate": ({"train.validat": {"every": 3}}, "train.validat", ("'validate'",)),
    "the cache's": ({"cache": {"feature": True}}, "cache.feature", ("'features'",)),
    "an augmentation's": (
        {"inputs.image.augment": {"shfit": 0.1}},
        "inputs.image.augment.shfit",
        ("'shift'",),
    ),
    "freeze's": ({f"{ENCODER}.freeze": {"lst": 1}}, f"{ENCODER}.freeze", ("true | false", "last")),
    "lora's": ({"backbone.lora": {"rank": 8}}, "backbone.lora.rank", ("LoraConfig",)),
    "timm's": (
        {ENCODER: {**TIMM, "options": {"image_size": 32}}},
        f"{ENCODER}.options",
        ("vit_tiny_patch16_224", "image_size"),
    ),
}

VALUES: dict[str, Case] = {
    "text for a number": ({"train.steps": "many"}, "train.steps", ("'many' (str)", "int >= 0")),
    "truth for a number": ({"train.steps": True}, "train.steps", ("True (bool)", "a number")),
    "truth for a width": ({f"{ENCODER}.dim": True}, f"{ENCODER}.dim", ("True (bool)", "number")),
    "truth in a section": (
        {"train.validate": {"every": True}},
        "train.validate.every",
        ("True (bool)", "a number"),
    ),
    "a broken number": ({f"{ENCODER}.dim": 1.5}, f"{ENCODER}.dim", ("1.5 (float)", "int")),
    "text for truth": (
        {f"{CONNECTOR}.norm": "perhaps"},
        f"{CONNECTOR}.norm",
        ("'perhaps'", "true | false"),
    ),
    "none of a choice": (
        {f"{CONNECTOR}.activation": "tanh"},
        f"{CONNECTOR}.activation",
        ("'tanh'", "'gelu' | 'relu' | 'silu'"),
    ),
    "a list for a section": ({"inputs.image": ["image"]}, "inputs.image", ("list", "modality")),
    "text for a section": ({"inputs.image": "timm"}, "inputs.image", ("'timm'", "modality")),
    "text for sections": ({"inputs": "image"}, "inputs", ("'image'", "named sections")),
    "truth for weights": ({f"{ENCODER}.weights": False}, f"{ENCODER}.weights", ("False", "str")),
    "a negative rate": ({"train.optimizer": {"lr": -1}}, "train.optimizer.lr", ("-1", "> 0")),
    "an endless rate": (
        {"train.optimizer": {"lr": float("inf")}},
        "train.optimizer.lr",
        ("inf", "> 0"),
    ),
    "negative steps": ({"train.steps": -1}, "train.steps", ("-1", ">= 0")),
    "a negative depth": ({f"{CONNECTOR}.depth": -1}, CONNECTOR, ("depth", "-1", "at least 1")),
    "an empty batch": ({"train.batch_size": 0}, "train.batch_size", ("0", "> 0")),
    "all rows held out": ({f"{TRAIN}.holdout": 1}, f"{TRAIN}.holdout", ("1", ">= 0 and < 1")),
    "no new tokens": (
        {"tasks.caption.max_new_tokens": 0},
        "tasks.caption.max_new_tokens",
        ("0", "at least 1"),
    ),
    "a size that does not divide": (
        {f"{ENCODER}.patch_size": 3},
        ENCODER,
        ("size 8", "patch_size 3", "must divide"),
    ),
    "heads that do not divide": (
        {"backbone.options.num_attention_heads": 5},
        "backbone",
        ("(32)", "(5)", "multiple"),
    ),
    "more blocks than there are": (
        {f"{ENCODER}.freeze": {"last": 99}},
        f"{ENCODER}.freeze.last",
        ("99", "1 blocks"),
    ),
    "a rank of nothing": ({"backbone.lora": {"r": 0}}, "backbone.lora", ("positive", "0")),
    "lora on nothing": (
        {"backbone.lora": {"r": 2, "target_modules": ["nothing"]}},
        "backbone.lora",
        ("nothing", "not found"),
    ),
    "a size in words": (
        {ENCODER: {**TIMM, "options": {"img_size": "big"}}},
        f"{ENCODER}.options",
        ("vit_tiny_patch16_224", "'big'"),
    ),
}

NAMES: dict[str, Case] = {
    "a modality": ({"inputs.image.modality": "imge"}, "inputs.image.modality", ("'image'",)),
    "an encoder": ({f"{ENCODER}.type": "tim"}, f"{ENCODER}.type", ("'timm'", "module:Class")),
    "a connector": ({CONNECTOR: "mpl"}, f"{CONNECTOR}.type", ("'mlp'", "module:Class")),
    "a decoder": ({"backbone.type": "casual"}, "backbone.type", ("'causal'",)),
    "a decoder's name": ({"backbone.name": "tiny-lama"}, "backbone.name", ("'tiny-llama'",)),
    "a task": ({"tasks.caption.type": "captionning"}, "tasks.caption.type", ("'captioning'",)),
    "a head": (
        {"tasks.digit": {**DIGIT, "head": "liner", "data": DIGITS}},
        "tasks.digit.head.type",
        ("'linear'",),
    ),
    "a source": ({f"{TRAIN}.source": "digit"}, f"{TRAIN}.source", ("'digits'",)),
    "a tokenizer": ({"backbone.tokenizer": "bep"}, "backbone.tokenizer", ("'bpe'",)),
    "a timm model": ({f"{ENCODER}": {**TIMM, "name": "vit_tinny"}}, ENCODER, ("did you mean",)),
    "an open_clip model": (
        {ENCODER: {"type": "open_clip", "name": "ViT-B-33", "weights": "none"}},
        ENCODER,
        ("ViT-B-32",),
    ),
    "a hub model": (
        {ENCODER: {"type": "timm", "name": "hf-hub:org/model"}},
        f"{ENCODER}.name",
        ("hf-hub:org/model", "connection"),
    ),
    "a bare a/b of timm": (
        {ENCODER: {"type": "timm", "name": "org/model"}},
        ENCODER,
        ("hf-hub:org/model", "local-dir:org/model"),
    ),
    "a split": ({f"{TRAIN}.split": "trian"}, f"{TRAIN}.split", ("'trian'", "'train' | 'test'")),
    "a column": ({"tasks.caption.target": "{wrod}"}, TRAIN, ("'wrod'", "'word'", "columns:")),
    "a mapped column": (
        {f"{TRAIN}.columns": {"word": "wrod"}},
        f"{TRAIN}.columns.word",
        ("'wrod'", "'word'"),
    ),
    "a task of the weights": (
        {"train.task_weights": {"captoin": 1}},
        "train.task_weights.captoin",
        ("'caption'",),
    ),
    "a stream's own": (
        {"inputs.my image": {"modality": "image", "encoder": "patches"}},
        "inputs.my image",
        ("letters, digits", "my_image"),
    ),
    "no module": (
        {f"{ENCODER}.type": "no_such_file:Mine"},
        f"{ENCODER}.type",
        ("'no_such_file'", "current folder"),
    ),
    "no class": (
        {f"{ENCODER}.type": "sensorium.modalities.image.encoders.patches:Patch"},
        f"{ENCODER}.type",
        ("the module has no 'Patch'", "'Patches'"),
    ),
    "a class of another room": (
        {ENCODER: {"type": "sensorium.connectors.projectors:MLP"}},
        f"{ENCODER}.type",
        ("is no image encoder", "sensorium.modalities.base:Encoder"),
    ),
    "a class after a dot": (
        {f"{ENCODER}.type": "my.encoders.Mine"},
        f"{ENCODER}.type",
        ("my.encoders:Mine",),
    ),
}

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


def _edited(edits: dict[str, Any]) -> str:
    values = copy.deepcopy(BASE)
    for path, value in edits.items():
        *parents, last = path.split(".")
        section = values
        for key in parents:
            section = section.setdefault(key, {})
        if value is GONE:
            del section[last]
        else:
            section[last] = value
    text: str = yaml.safe_dump(values, sort_keys=False)
    return text


def _fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a verb that must end with one line and code 2; the line."""
    monkeypatch.setattr(sys, "argv", ["sensorium", *words])
    with pytest.raises(SystemExit) as end:
        entry.main()
    err = capsys.readouterr().err
    assert end.value.code == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    return err.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize("name", CASES)
def test_one_mistake_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edits, place, cure = CASES[name]
    Path("recipe.yaml").write_text(_edited(edits), encoding="utf-8")
    line = _fails(monkeypatch, capsys, "check", "recipe.yaml")
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
    line = _fails(monkeypatch, capsys, "check", "recipe.yaml")
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
    Path("recipe.yaml").write_text(_edited({}), encoding="utf-8")
    line = _fails(monkeypatch, capsys, "check", "recipe.yaml", text)
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
    Path("recipe.yaml").write_text(_edited({"train.step": 1, "cache": {"feature": 1}}))
    monkeypatch.setattr(sys, "argv", ["sensorium", "check", "recipe.yaml"])
    with pytest.raises(SystemExit) as end:
        entry.main()
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert [line.split(": ")[1] for line in lines] == ["train.step", "cache.feature"]


ROGUE = """
from sensorium.modalities.base import Encoder

class Weighty(Encoder):
    def __init__(self, *, weights: str = "none") -> None: ...

class Greedy(Encoder):
    def __init__(self, **options: int) -> None: ...

class Bare(Encoder):
    def __init__(self, size) -> None: ...
"""


@pytest.mark.parametrize(
    ("name", "cure"), [("Weighty", "'weights'"), ("Greedy", "**options"), ("Bare", "annotate")]
)
def test_a_constructor_that_breaks_the_rules(
    name: str,
    cure: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "rogue_parts.py").write_text(ROGUE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    Path("recipe.yaml").write_text(_edited({ENCODER: {"type": f"rogue_parts:{name}"}}))
    line = _fails(monkeypatch, capsys, "check", "recipe.yaml")
    assert line.startswith(ENCODER)
    assert name in line
    assert cure in line


def test_a_folder_that_holds_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("recipe.yaml").write_text(_edited({}))
    used = tmp_path / "runs" / "recipe"
    used.mkdir(parents=True)
    (used / "recipe.yaml").write_text("", encoding="utf-8")
    (used / "run.json").write_text("{}", encoding="utf-8")
    line = _fails(monkeypatch, capsys, "train", "recipe.yaml", "--quiet")
    for words in ("runs/recipe", "--resume", "--overwrite", "--out"):
        assert words in line


def test_a_run_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("recipe.yaml").write_text(_edited({}))
    line = _fails(monkeypatch, capsys, "train", "recipe.yaml", "--resume", "--quiet")
    assert "without --resume" in line
    line = _fails(monkeypatch, capsys, "evaluate", "runs/gone")
    assert line.startswith("runs/gone: ")
    line = _fails(monkeypatch, capsys, "check", "gone.yaml")
    assert line.startswith("gone.yaml: ")
    assert "sensorium list recipes" in line


@pytest.mark.slow
def test_a_best_that_no_metric_has_ends_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edits = {"train.validate": {"every": 1, "metric": "caption/wrods"}}
    Path("recipe.yaml").write_text(_edited(edits))
    line = _fails(monkeypatch, capsys, "train", "recipe.yaml", "--quiet")
    assert line.startswith("train.validate.metric: ")
    assert "'caption/words'" in line
    assert not Path("runs/recipe/metrics.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edits", "place"),
    [
        ({"train.step": 3}, "train.step"),
        ({ENCODER: {**TIMM, "options": {"image_size": 32}}}, f"{ENCODER}.options.image_size"),
        ({TRAIN: {"source": "json", "path": "gone.jsonl", "holdout": 0.2}}, TRAIN),
    ],
)
def test_as_a_process(edits: dict[str, Any], place: str) -> None:
    Path("recipe.yaml").write_text(_edited(edits), encoding="utf-8")
    command = [sys.executable, "-m", "sensorium", "check", "recipe.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {place}: ")
    assert done.stderr.count("\n") == 1
