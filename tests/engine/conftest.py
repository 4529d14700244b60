"""A folder to train in: a stranger's encoder beside it, a cache of its own, tiny recipes."""

from __future__ import annotations

import copy
import functools
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from starter import Starter, parse

PARTS = Path(__file__).with_name("tiny_parts.py")
BAGS = Path(__file__).with_name("bag_parts.py")


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, section by section; None takes a key away."""
    result = dict(copy.deepcopy(base))
    for key, value in over.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


CLASSIFY = {
    "inputs": {"image": {"modality": "image", "encoder": {"type": "tiny_parts:Tiny"}}},
    "tasks": {
        "digit": {
            "type": "classification",
            "input": "image",
            "target": "word",
            "data": {"train": {"source": "digits", "split": "train", "limit": 40}},
        }
    },
    "train": {"steps": 10, "batch_size": 4, "optimizer": {"lr": 0.01}, "log_every": 1},
}
"""An encoder and a head; an epoch is ten steps."""

SECOND = {
    "inputs": {
        "scan": {
            "modality": "image",
            "encoder": {"type": "tiny_parts:Tiny", "dim": 6},
            "connector": "linear",
        }
    },
    "backbone": {
        "type": "causal",
        "name": "tiny-llama",
        "tokenizer": "bytes",
        "weights": "none",
        "options": {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
        },
    },
    "tasks": {
        "caption": {
            "type": "captioning",
            "prompt": "<scan> It is:",
            "target": "{caption}",
            "data": {
                "train": {
                    "source": "digits",
                    "split": "train",
                    "limit": 24,
                    "columns": {"scan": "image"},
                }
            },
        }
    },
}
"""A second task with a stream and a decoder of its own, to be laid over the first."""


@dataclass
class Runner:
    """A folder where tiny recipes are trained, in this process or in another."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def recipe(self, *changes: Mapping[str, Any]) -> dict[str, Any]:
        """The one-task recipe, with changes laid over it in order."""
        return self.changed(CLASSIFY, *changes)

    def changed(self, recipe: Mapping[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
        """A recipe with changes laid over it in order."""
        result = dict(recipe)
        for each in changes:
            result = merged(result, each)
        return result

    def both(self, *changes: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe of two tasks with different streams."""
        return self.recipe(SECOND, *changes)

    def train(self, recipe: Mapping[str, Any], name: str, **options: Any) -> Any:
        """Train in this process, into a folder; gives the model."""
        from sensorium.engine.recipe import parse_recipe
        from sensorium.engine.training import train

        return train(parse_recipe(recipe), self.folder / name, show=False, **options)

    def cut(self, recipe: Mapping[str, Any], name: str, step: int, **options: Any) -> None:
        """Train until a step is done, and be gone before its checkpoint or validation."""
        from sensorium.engine.training.trainer import Trainer

        real = Trainer._validate_and_save

        def cut(trainer: Any) -> None:
            if trainer.global_step == step:
                raise InterruptedError
            real(trainer)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "_validate_and_save", cut)
            with pytest.raises(InterruptedError):
                self.train(recipe, name, **options)

    def losses(self, name: str) -> list[tuple[int, str, float]]:
        """(step, task, loss) of every step that a run logged."""
        from sensorium.engine.utils import read_metrics

        lines = read_metrics(self.folder / name)
        return [(x["step"], x["task"], x["loss"]) for x in lines if "loss" in x]

    def values(self, recipe: Mapping[str, Any], name: str) -> list[float]:
        """The losses of a run that is trained here and now."""
        self.train(recipe, name)
        return [loss for _, _, loss in self.losses(name)]

    def write(self, recipe: Mapping[str, Any], name: str) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(dict(recipe), sort_keys=False))
        return path

    def command(
        self, recipe: Mapping[str, Any], name: str, *more: str, processes: int = 1
    ) -> list[str]:
        """`python -m sensorium train ...`, under torchrun where several processes are asked for."""
        file = self.write(recipe, name)
        start = [sys.executable]
        if processes > 1:
            start += ["-m", "torch.distributed.run", "--standalone"]
            start += ["--nproc_per_node", str(processes)]
        return [*start, "-m", "sensorium", "train", str(file), "--out", name, *more]

    def run(
        self,
        command: Sequence[str],
        *,
        fault: str = "",
        timeout: float = 400,
        fresh: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """A command in the folder, in a session of its own; a hang is a failure. One of Python is
        forked from a process that has imported the package; `fresh` starts Python anew."""
        environment = {**os.environ, **self.environment, "TINY_FAULT": fault}
        if not fresh and (parsed := parse(command)):
            code, out, err = starter().run(*parsed, self.folder, environment, timeout)
            if code is None:
                pytest.fail(f"{' '.join(command)}: hangs\n{out}\n{err}")
            return subprocess.CompletedProcess(command, code, out, err)
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            out, err = process.communicate()
            pytest.fail(f"{' '.join(command)}: hangs\n{out}\n{err}")
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def go(self, recipe: Mapping[str, Any], name: str, *more: str, **how: Any) -> Any:
        """`sensorium train` of a recipe by the command line."""
        processes = how.pop("processes", 1)
        return self.run(self.command(recipe, name, *more, processes=processes), **how)


@functools.cache
def starter() -> Starter:
    """Return the server of this process."""
    return Starter()


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    """Return a runner in an empty folder with a cache of its own and a file of parts."""
    shutil.copy(PARTS, tmp_path / PARTS.name)
    environment = {
        "SENSORIUM_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tiny_parts", raising=False)
    for remembered in ("_recipe_folders", "_added"):  # of the recipes of other tests
        monkeypatch.setattr(f"sensorium.engine.utils.plugin_path.{remembered}", [])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the other processes: sums are then bit-equal
    yield Runner(tmp_path, environment)
    torch.set_num_threads(threads)
    sys.modules.pop("tiny_parts", None)


@dataclass
class BagShop:
    """A folder where the task of `bag_parts`, on cells of several pictures, is trained."""

    runner: Runner
    parts: Any

    def recipe(self, *changes: Mapping[str, Any]) -> dict[str, Any]:
        """A recipe with changes laid over it in order."""
        data = {split: {"source": "bag_parts:Bags"} for split in ("train", "test")}
        base = {
            "inputs": {"image": {"connector": "linear"}},
            "tasks": {"digit": None, "bag": {"type": "bag_parts:Light", "data": data}},
            "train": {"steps": 4, "batch_size": 3},
        }
        return self.runner.recipe(base, *changes)

    def model(self, *changes: Mapping[str, Any]) -> Any:
        """The model of a recipe."""
        from sensorium.engine.model import build
        from sensorium.engine.recipe import parse_recipe

        return build(parse_recipe(self.recipe(*changes)))


@pytest.fixture
def bags(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Iterator[BagShop]:
    shutil.copy(BAGS, runner.folder / BAGS.name)
    monkeypatch.delitem(sys.modules, "bag_parts", raising=False)
    yield BagShop(runner, importlib.import_module("bag_parts"))
    sys.modules.pop("bag_parts", None)


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], None]:
    """Make a method raise from now on."""

    def forbidden(owner: Any, method: str) -> None:
        def never(*args: Any, **kwargs: Any) -> None:
            raise AssertionError(f"{owner}.{method} was called")

        monkeypatch.setattr(owner, method, never)

    return forbidden
