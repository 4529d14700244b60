"""The dry run: what it prints, what it refuses, and that it never touches a weight."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.engine.model import build
from sensorium.engine.recipe import count, load_recipe, parse_recipe
from sensorium.engine.training import check
from sensorium.engine.training.dry_run import ComponentSummary, Report
from sensorium.engine.utils import ConfigError

SHIPPED = Path(__file__).parents[4] / "configs"
GIGABYTE = 1e9

RECIPE: dict[str, Any] = {
    "inputs": {
        "image": {
            "modality": "image",
            "encoder": {"type": "patches", "size": 8, "patch_size": 4, "dim": 12},
            "connector": "mlp",
        }
    },
    "backbone": {
        "type": "causal",
        "name": "tiny-llama",
        "tokenizer": "bpe",
        "options": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1},
    },
    "tasks": {
        "caption": {
            "type": "captioning",
            "prompt": "<image> It is",
            "target": "{word}",
            "data": {"train": {"source": "digits", "split": "train", "limit": 40}},
        },
        "digit": {
            "type": "classification",
            "input": "image",
            "head": "mlp",
            "data": {"train": {"source": "digits", "split": "train", "limit": 40}},
        },
    },
    "train": {"batch_size": 8},
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def _report(**changes: Any) -> Report:
    return check(parse_recipe(_with(**changes)))


def _with(**changes: Any) -> dict[str, Any]:
    """The recipe with `room__name__key=value` put in; None takes a key away."""
    recipe: dict[str, Any] = copy.deepcopy(RECIPE)
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = recipe
        for key in parents:
            section = section.setdefault(key, {})
        section.pop(last, None)
        if value is not None:
            section[last] = value
    return recipe


def _stages(report: Report) -> dict[str, ComponentSummary]:
    return {stage.where: stage for stage in report.components}


FEWER = {
    f"control/metaworld_{name}.yaml": [
        f"tasks.act.data.train.{few}"
        for few in ("episodes=1", "branches=0", "hold=1", "size=32", "tasks=[reach-v3]")
    ]
    for name in ("state", "pixels")
}
"""Recipes whose data are recorded in a simulator when first asked for -> a minute less of it."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(str(p.relative_to(SHIPPED)) for p in SHIPPED.rglob("*.yaml"))
)
def test_every_shipped_recipe_passes(name: str) -> None:
    if name in FEWER:
        pytest.importorskip("metaworld")
    report = check(load_recipe(SHIPPED / name, FEWER.get(name, [])))
    assert report.components
    assert all(flops > 0 for flops in report.flops.values())


def test_it_tells_the_way_of_the_data() -> None:
    stages = _stages(_report(inputs__image__encoder__freeze=True))
    assert stages["inputs.image.encoder"].shape == "[B, 4, 12] grid 2x2"
    assert stages["inputs.image.connector"].shape == "[B, 4, 16] grid 2x2"
    assert stages["tasks.digit.head"].shape == "[B, 1, 10]"
    assert stages["backbone"].shape.endswith(", 16]")
    assert stages["inputs.image.encoder"].trained == 0
    assert "frozen, features cached" in stages["inputs.image.encoder"].note
    assert set(stages) == {
        "backbone",
        "inputs.image.encoder",
        "inputs.image.connector",
        "tasks.digit.head",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"inputs__image__encoder__freeze": True},
        {"inputs__image__encoder__freeze": {"last": 1}},
        {"backbone__lora": {"r": 2}},
    ],
)
def test_its_numbers_are_those_of_the_model(changes: Mapping[str, Any]) -> None:
    stages = _stages(_report(**changes))
    model = build(parse_recipe(_with(**changes)))
    for where, module, _ in model.components:
        if where in stages:
            assert stages[where].parameters == count(module)
            assert stages[where].trained == count(module, True)
    assert sum(s.parameters for s in stages.values()) == count(model)
    assert sum(s.trained for s in stages.values()) == count(model, True)


def test_flops_and_memory_follow_the_batch() -> None:
    small, large = _report(train__batch_size=4), _report(train__batch_size=8)
    weights = 4 * 4 * sum(s.parameters for s in small.components)
    for task in ("caption", "digit"):
        assert large.flops[task] == pytest.approx(2 * small.flops[task])
        assert large.memory[task] - weights == pytest.approx(2 * (small.memory[task] - weights))


def test_flops_of_a_linear_map_are_counted_exactly() -> None:
    """The patches' convolution and the classifier: forward, and backward to their weights."""
    report = _report(
        tasks__caption=None,
        backbone=None,
        inputs__image__connector=None,
        tasks__digit__head="linear",
    )
    forward = 2 * 4 * (3 * 4 * 4) * 12 + 2 * 12 * 10  # four patches; ten classes
    to_inputs = 2 * 12 * 10
    assert report.flops["digit"] == pytest.approx(8 * (2 * forward + to_inputs))


def test_random_weights_are_said(tmp_path: Path) -> None:
    report = str(_report(inputs__image__encoder__freeze=True))
    assert "warning: inputs.image.encoder is frozen at random weights" in report
    assert "begins at random weights: backbone, inputs.image.connector, tasks.digit.head" in report
    assert "warning" not in str(_report())


@pytest.mark.parametrize(
    ("changes", "where", "words"),
    [
        ({"inputs__image__connector": None}, "inputs.image", ("12", "16", "connector: linear")),
        (
            {"inputs__image__connector": {"type": "pixel_shuffle", "factor": 3}},
            "tasks.caption",
            ("2", "3"),
        ),
        (
            {"inputs__image__connector": {"type": "stack", "factor": 0}},
            "inputs.image.connector",
            ("factor is 0", "at least"),
        ),
    ],
)
def test_parts_that_do_not_meet(
    changes: Mapping[str, Any], where: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as error:
        _report(**changes)
    line = str(error.value)
    assert line.startswith((f"{where}: ", f"{where}.", "inputs.image.connector"))
    assert "\n" not in line
    for word in words:
        assert word in line


def test_without_data_its_example_is_walked() -> None:
    report = _report(tasks__caption__data=None, tasks__digit=None)
    assert "tasks.caption: has no data.train; walked with its example rows" in report.notes
    assert report.flops["caption"] > 0


def test_a_tokenizer_says_what_it_loses() -> None:
    lower = {"type": "characters"}
    text = " ".join(("Ab", "a  b", "e\u0301"))
    notes = _report(
        tasks__caption__target=f"{text} {{word}}", backbone__tokenizer=lower, tasks__digit=None
    ).notes
    (note,) = [note for note in notes if "does not keep" in note]
    assert note.startswith("backbone.tokenizer: does not keep capitals; ")
    assert not [note for note in _report().notes if "does not keep" in note]


def _folder(path: Path, count: int) -> Path:
    for label in ("a", "b"):
        (path / label).mkdir(parents=True)
        for i in range(count):
            pixels = np.full((8, 8, 3), 20 * i, np.uint8)
            Image.fromarray(pixels).save(path / label / f"{i}.png")
    return path


def _reads(path: Path, **more: Any) -> Report:
    data = {"train": {"source": "imagefolder", "path": str(path), **more}}
    return _report(tasks__caption=None, backbone=None, tasks__digit__data=data)


def test_a_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "pictures", 2)
    assert _reads(folder).components
    (folder / "a" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError) as error:
        _reads(folder)
    line = str(error.value)
    assert line.startswith("tasks.digit.data.train, row ")
    assert "0.png" in line
    assert "on_error: skip" in line
    assert _reads(folder, on_error="skip").components


def test_weights_are_never_touched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sensorium.backbones.causal import Causal

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("weights were loaded")

    _llama(tmp_path / "llama", hidden_size=16, layers=1)
    (tmp_path / "llama" / "model.safetensors").write_bytes(b"")  # enough to be asked for
    monkeypatch.setattr(Causal, "load", never)
    recipe = _with(backbone={"type": "causal", "name": "llama", "tokenizer": "bytes"})
    (tmp_path / "image.safetensors").write_bytes(b"")
    recipe["inputs"]["image"]["encoder"]["weights"] = "image.safetensors"
    report = check(parse_recipe(recipe))
    assert "backbone" not in "".join(report.notes)  # it does not begin at random weights


def test_nothing_is_left_behind() -> None:
    """Neither the generator nor the default device is another one afterwards."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    _report()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.empty(1).device.type == "cpu"


def _llama(folder: Path, hidden_size: int = 4096, layers: int = 32) -> None:
    """The configuration of a Llama of 7 B parameters, or of a narrower one; no weights."""
    config = {
        "model_type": "llama",
        "hidden_size": hidden_size,
        "intermediate_size": hidden_size * 43 // 16,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden_size // min(128, hidden_size),
        "num_key_value_heads": hidden_size // min(128, hidden_size),
        "vocab_size": 32000,
        "tie_word_embeddings": False,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))


MEASURED = """
import os, subprocess, sys
_, status, used = os.wait4(subprocess.Popen(sys.argv[1:]).pid, 0)
print(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.slow
def test_a_large_pair_is_checked_in_little_memory(tmp_path: Path) -> None:
    """ViT-L/14 at 336 px with a Llama of 7 B parameters: shapes alone, in a process of its own."""
    _llama(tmp_path / "llama")
    recipe = _with(
        inputs__image__encoder={
            "type": "timm",
            "name": "vit_large_patch14_clip_336",
            "weights": "none",
        },
        backbone={"type": "causal", "name": "llama", "tokenizer": "bytes", "weights": "none"},
        tasks__digit=None,
        train__batch_size=1,
    )
    parse_recipe(recipe).write(tmp_path / "large.yaml")
    command = [sys.executable, "-m", "sensorium", "check", "large.yaml"]
    # A process of its own starts it: what this one holds would count as the child's peak.
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6,738,415,616" in done.stdout
    assert "[B, 576, 4096] grid 24x24" in done.stdout
    seconds, memory = map(float, done.stderr.split()[-2:])
    sys.stdout.write(f"{seconds:.1f} s of CPU, {memory / GIGABYTE:.2f} GB\n")
    assert memory < 1.5 * GIGABYTE
    recipe["inputs"]["image"].pop("connector")
    parse_recipe(recipe).write(tmp_path / "wrong.yaml")
    wrong = subprocess.run(
        [*command[:-1], "wrong.yaml"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: inputs.image: ")
    for word in ("1024", "4096", "connector: linear"):
        assert word in wrong.stderr
