"""The numbers of a dry run: parameters, FLOPs, memory; and that no weight is touched."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.engine.model import build
from sensorium.engine.recipe import count, parse_recipe
from sensorium.engine.training import check
from sensorium.tests.engine.training.dry_run.dry_run_recipes import (
    changed_recipe,
    report_of,
    stages_of,
)

GIGABYTE = 1e9


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


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
    stages = stages_of(report_of(**changes))
    model = build(parse_recipe(changed_recipe(**changes)))
    for where, module, _ in model.components:
        if where in stages:
            assert stages[where].parameters == count(module)
            assert stages[where].trained == count(module, True)
    assert sum(s.parameters for s in stages.values()) == count(model)
    assert sum(s.trained for s in stages.values()) == count(model, True)


def test_flops_and_memory_follow_the_batch() -> None:
    small, large = report_of(train__batch_size=4), report_of(train__batch_size=8)
    weights = 4 * sum(s.parameters for s in small.components)
    for task in ("caption", "digit"):
        assert large.flops[task] == pytest.approx(2 * small.flops[task])
        step, twice = small.steps[task], large.steps[task]
        assert twice.activations == pytest.approx(2 * step.activations)
        assert (step.trained, step.states) == pytest.approx((weights, 2 * weights), rel=1e-3)
        assert small.memory[task] == step.of_replicas() >= step.weights + step.states


def test_flops_of_a_linear_map_are_counted_exactly() -> None:
    """The patches' convolution and the classifier: forward, and backward to their weights."""
    report = report_of(
        tasks__caption=None,
        backbone=None,
        inputs__image__connector=None,
        tasks__digit__head="linear",
    )
    forward = 2 * 4 * (3 * 4 * 4) * 12 + 2 * 12 * 10  # four patches; ten classes
    to_inputs = 2 * 12 * 10
    assert report.flops["digit"] == pytest.approx(8 * (2 * forward + to_inputs))


def test_weights_are_never_touched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sensorium.backbones.causal import Causal

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("weights were loaded")

    _llama(tmp_path / "llama", hidden_size=16, layers=1)
    (tmp_path / "llama" / "model.safetensors").write_bytes(b"")  # enough to be asked for
    monkeypatch.setattr(Causal, "load", never)
    recipe = changed_recipe(backbone={"type": "causal", "name": "llama", "tokenizer": "bytes"})
    (tmp_path / "image.safetensors").write_bytes(b"")
    recipe["inputs"]["image"]["encoder"]["weights"] = "image.safetensors"
    report = check(parse_recipe(recipe))
    assert "backbone" not in "".join(report.notes)  # it does not begin at random weights


def test_nothing_is_left_behind() -> None:
    """Neither the generator nor the default device is another one afterwards."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    report_of()
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
    recipe = changed_recipe(
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
