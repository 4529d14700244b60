"""The cache filled by several processes, each its share, and by a command of its own."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from sensorium.engine.cache import list_stores
from sensorium.engine.model import FeatureCacher, build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training.batches import open_data
from sensorium.engine.training.parallel import fill_cache
from sensorium.modalities.paths import cache_root

FROZEN = {"inputs": {"image": {"encoder": {"freeze": True}}}}


def records() -> int:
    return sum(store.records for store in list_stores(cache_root()))


@pytest.mark.parametrize("processes", [2, 3])
def test_shares_are_apart_and_make_the_whole(runner: Any, processes: int) -> None:
    model = build(parse_recipe(runner.recipe(FROZEN)))
    datasets, _ = open_data(model, model.plan.recipe.train)
    computed, filled = [], []
    for process in range(processes):
        cacher = FeatureCacher(
            model.plan,
            model,
            torch.device("cpu"),
            "fp32",
            4,
            lambda name, done, total: filled.append((done, total)),
        )
        before = records()
        assert cacher.attach([*datasets.values()], (process, processes)) == {"image"}
        computed.append(records() - before)
    assert sum(computed) == 40 and all(0 < count < 40 for count in computed)
    filled.clear()
    cacher.attach([*datasets.values()])
    assert not filled  # nothing is missing


def test_a_training_finds_what_the_command_filled(runner: Any, forbid: Any) -> None:
    values = runner.recipe(FROZEN)
    assert fill_cache(str(runner.write(values, "recipe")), (), "cpu") == ["image"]
    assert records() == 40
    import tiny_parts

    forbid(tiny_parts.Tiny, "forward")
    runner.train(values, "run")


@pytest.mark.slow
def test_two_processes_fill_one_store(runner: Any) -> None:
    file = runner.write(runner.recipe(FROZEN), "recipe")
    command = ["cache", "fill", str(file), "--engine", "torchrun", "--processes", "2"]
    done = runner.run([sys.executable, "-m", "sensorium", *command, "--device", "cpu"])
    assert done.returncode == 0, done.stderr
    assert records() == 40


FATAL = """
import os, signal
from pathlib import Path
from tiny_parts import Tiny

class Fatal(Tiny):
    def forward(self, pixel_values):
        count = Path("forwards")
        with count.open("a") as file:
            file.write("x")
        if count.stat().st_size == 5 and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(pixel_values)
"""


@pytest.mark.slow
def test_a_killed_actor_of_ray_costs_its_share(runner: Any) -> None:
    pytest.importorskip("ray")
    (runner.folder / "fatal.py").write_text(FATAL.replace('Path("', f'Path("{runner.folder}/'))
    fatal = {"inputs": {"image": {"encoder": {"type": "fatal:Fatal", "freeze": True}}}}
    file = runner.write(runner.recipe(fatal), "recipe")
    command = ["cache", "fill", str(file), "--engine", "ray", "--device", "cpu"]
    done = runner.run([sys.executable, "-m", "sensorium", *command])
    assert done.returncode == 0, done.stderr
    assert (runner.folder / "killed").exists()
    assert records() == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "dask"], "--engine: found 'dask', expected local, torchrun or ray"),
        (["--processes", "2"], "--processes: found 2 with --engine local, which is one process"),
    ],
)
def test_mistakes_of_the_command(runner: Any, options: list[str], message: str) -> None:
    from typer.testing import CliRunner

    from sensorium.engine.utils import ConfigError
    from sensorium.scripts.app import app

    result = CliRunner().invoke(app, ["cache", "fill", "x.yaml", *options])
    assert isinstance(result.exception, ConfigError) and message in str(result.exception)
