"""Where a model runs: the device that is picked, and that nothing is left behind on another."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import sensorium
from sensorium import __main__ as entry
from sensorium.engine.checkpoint import load_model
from sensorium.engine.evaluation import evaluate
from sensorium.engine.index import IndexMetadata, create_index
from sensorium.engine.model.stream import Stream
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check, train
from sensorium.engine.utils import ConfigError, device, distributed
from sensorium.engine.utils.device import available, fork_rng, pick

VERBS: dict[str, list[str]] = {
    "train": ["tiny.yaml"],
    "evaluate": ["run"],
    "generate": ["run", "a.png"],
    "embed": ["run"],
    "retrieve": ["index", "--image", "a.png"],
    "rollout": ["run"],
}
"""The verbs that run a model."""

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with so many devices of each kind."""

    def has(**counts: int) -> None:
        monkeypatch.setattr(device, "device_count", lambda kind: {"cpu": 1, **counts}.get(kind, 0))

    return has


@pytest.mark.parametrize(
    ("counts", "named", "expected"),
    [
        ({}, None, "cpu"),
        ({"mps": 1}, None, "mps"),
        ({"mps": 1, "xpu": 1}, None, "xpu"),
        ({"mps": 1, "xpu": 1, "cuda": 2}, None, "cuda"),
        ({"cuda": 2}, "cpu", "cpu"),
        ({"cuda": 2}, "cpu:0", "cpu"),
        ({"cuda": 2, "xpu": 1}, "xpu", "xpu"),
        ({"cuda": 2}, "cuda:1", "cuda:1"),
        ({"cuda": 2}, torch.device("cuda", 1), "cuda:1"),
    ],
)
def test_the_named_device_or_the_first(
    machine: Machine, counts: dict[str, int], named: Any, expected: str
) -> None:
    machine(**counts)
    assert pick(named) == torch.device(expected)


@pytest.mark.parametrize(
    ("counts", "named", "line"),
    [
        ({}, "cuda", "device: cuda is not available here; take one of cpu"),
        ({"mps": 1}, "cuda:0", "device: cuda is not available here; take one of mps, cpu"),
        ({"cuda": 2}, "cuda:2", "device: found cuda:2, but cuda has 2 here"),
        ({"cuda": 2}, "cdua", "device: 'cdua' is no kind of device.*did you mean 'cuda'"),
        ({"cuda": 2}, "cuda:", "device: 'cuda:' is no kind"),
        ({"cuda": 2}, "cuda:-1", "device: 'cuda:-1' is no kind"),
        ({"cuda": 2}, "", "device: '' is no kind"),
        ({}, "meta", "device: 'meta' is no kind"),
    ],
)
def test_a_wrong_or_absent_device_is_one_line(
    machine: Machine, counts: dict[str, int], named: str, line: str
) -> None:
    machine(**counts)
    with pytest.raises(ConfigError, match=line) as error:
        pick(named)
    assert "\n" not in str(error.value)


def test_this_machine_ends_with_its_cpu() -> None:
    assert available()[-1] == "cpu"


def test_draws_inside_a_fork_are_forgotten() -> None:
    torch.manual_seed(1)
    with fork_rng():
        torch.rand(3)
    first = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), first)


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
        "tokenizer": "bytes",
        "options": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1},
    },
    "tasks": {
        "answer": {
            "type": "captioning",
            "prompt": "<image> what is it?",
            "target": "{word}",
            "max_new_tokens": 3,
            "data": {
                "train": {"source": "digits", "split": "train", "limit": 60, "holdout": 0.1},
                "test": {"source": "digits", "split": "test", "limit": 6},
            },
        },
        "digit": {
            "type": "classification",
            "input": "image",
            "data": {"train": {"source": "digits", "split": "train", "limit": 60, "holdout": 0.1}},
        },
    },
    "train": {
        "steps": 4,
        "batch_size": 2,
        "validate": {"every": 2},
        "checkpoint": {"every": 2},
    },
}
PICTURE = np.full((8, 8), 100, np.uint8)


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def picked(accelerator: torch.device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The device that an accelerator of the fake kind makes the first choice."""
    monkeypatch.setattr(device, "KINDS", (accelerator.type, *device.KINDS))
    monkeypatch.setattr(device, "device_count", lambda kind: int(kind in ("cpu", "lazy")))
    return accelerator


@pytest.fixture
def sensorium_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """The exit code of a command line and what it writes to stderr."""

    def ends(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sensorium", *words])
        with pytest.raises(SystemExit) as end:
            entry.main()
        return int(end.value.code or 0), capsys.readouterr().err

    return ends


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("--device", "cuda", "error: device: cuda is not available here; take one of cpu, "),
        ("--precision", "fp8", "error: precision: there is no 'fp8'; "),
    ],
)
def test_every_verb_that_runs_a_model_refuses_in_one_line(
    verb: str,
    option: str,
    value: str,
    line: str,
    workdir: Path,
    machine: Machine,
    sensorium_ends: Any,
) -> None:
    machine()
    (workdir / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    create_index("index", IndexMetadata("run", "image", "image", 4, "fp32", {}))
    code, err = sensorium_ends(verb, *VERBS[verb], option, value)
    assert code == 2 and err.startswith(line) and err.count("\n") == 1


def test_training_takes_no_precision_that_its_device_has_not(
    workdir: Path, machine: Machine
) -> None:
    machine()
    half = parse_recipe({**RECIPE, "train": {**RECIPE["train"], "precision": "fp16"}})
    for start in (check, lambda recipe: train(recipe, workdir / "run", show=False)):
        with pytest.raises(ConfigError, match=r"train\.precision: fp16 trains on an accelerator"):
            start(half)


def test_several_processes_take_no_numbered_device(
    workdir: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(cuda=2)
    monkeypatch.setenv(distributed.LAUNCHED, "1")
    with pytest.raises(ConfigError, match=r"device: found cuda:1, but every process"):
        train(parse_recipe(RECIPE), workdir / "run", show=False, device="cuda:1")


@pytest.mark.slow
def test_training_and_all_that_follows_run_on_the_picked_device(
    workdir: Path, picked: torch.device
) -> None:
    """Nothing is mixed (the fake device refuses it), and the answers are those of the CPU."""
    model = train(parse_recipe(RECIPE), workdir / "run", show=False)
    assert model.device == picked
    resumed = {**RECIPE, "train": {**RECIPE["train"], "steps": 6}}
    more = {"resume": True, "allow_changes": ["train.steps"], "show": False}
    assert train(parse_recipe(resumed), workdir / "run", **more).device == picked
    result = evaluate(model := load_model(workdir / "run"))
    assert model.device == picked
    assert result == evaluate(load_model(workdir / "run"), device="cpu")
    pipeline = sensorium.load(workdir / "run")
    assert {p.device for p in pipeline.model.parameters()} == {picked}
    plain = sensorium.load(workdir / "run", device="cpu")
    assert {p.device.type for p in plain.model.parameters()} == {"cpu"}
    for task in ("answer", "digit"):
        assert pipeline.generate(task, image=PICTURE) == plain.generate(task, image=PICTURE)
    torch.testing.assert_close(pipeline.embed(image=PICTURE).cpu(), plain.embed(image=PICTURE))


@pytest.mark.slow
def test_the_command_line_runs_on_the_named_device(
    workdir: Path, picked: torch.device, sensorium_ends: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every verb, each asked for the device, moves the model there and leaves no part behind."""
    (workdir / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    Image.fromarray(PICTURE).save(workdir / "a.png")
    on = ("--device", picked.type, "--precision", "bf16")
    moved: list[str] = []
    real = Stream.encode_or_load

    def encoded(stream: Stream, *args: Any) -> Any:
        assert torch.is_autocast_enabled("cpu"), "bf16"
        moved.extend(p.device.type for p in stream.parameters())
        return real(stream, *args)

    monkeypatch.setattr(Stream, "encode_or_load", encoded)
    for words in (
        ("train", "tiny.yaml", "--out", "run"),
        ("evaluate", "run"),
        ("generate", "run", "a.png", "--task", "answer"),
        ("embed", "run", "--source", "digits", "--set", "split=test", "--set", "limit=5"),
        ("retrieve", "index", "--image", "a.png"),
    ):
        moved.clear()
        assert sensorium_ends(*words, *on)[0] == 0, words
        assert set(moved) == {picked.type}, words
