"""Whatever interrupts it, a job that is begun again leaves what an uninterrupted one leaves.

`pytest tests/engine/checkpoint/resume/test_kills.py -m slow --kills 300` interrupts 300 times.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kills import Job, Trial, embed_job, fill_job, train_job

NOISY = {"dropout": 0.3, "noise": 0.1, "norm": True}
STAGE = {"train": {"steps": 4, "checkpoint": {"every": 2}}}


def two_tasks(runner: Any) -> dict[str, Any]:
    """Two tasks, a frozen encoder with a cache, LoRA, validation with the best weights."""
    held = {"data": {"train": {"holdout": 0.25}}}
    changes = {
        "inputs": {
            "image": {"encoder": {"freeze": True}},
            "scan": {"encoder": NOISY, "augment": {"shift": 0.2}},
        },
        "backbone": {"options": {"attention_dropout": 0.2}, "lora": {"r": 2}},
        "tasks": {"digit": {"head": {"type": "mlp", "dropout": 0.2}, **held}, "caption": held},
        "train": {
            "steps": 8,
            "gradient_accumulation_steps": 2,
            "checkpoint": {"every": 2},
            "validate": {"every": 3, "metric": "digit/accuracy", "batches": 1},
        },
    }
    result: dict[str, Any] = runner.both(changes)
    return result


def stages(runner: Any) -> dict[str, Any]:
    """Three stages: the head alone, the encoder too, with the optimizer of the one before."""
    frozen = {"inputs": {"image": {"encoder": {"freeze": True}}}}
    noisy = {"inputs": {"image": {"encoder": NOISY}}}
    first, last = {"name": "head", **frozen}, {"name": "more", "keep_optimizer": True}
    return {**runner.recipe(STAGE, noisy), "stages": [first, {"name": "all"}, last]}


def job_sources(runner: Any) -> dict[str, tuple[Callable[..., Job], tuple[Any, ...]]]:
    """The function that makes each job, and its arguments: a job itself cannot be pickled."""
    data = {"test": {"source": "digits", "split": "test", "limit": 30}}
    recipe = runner.recipe({"tasks": {"digit": {"data": data}}})
    return {
        "training": (train_job, (two_tasks(runner),)),
        "stages": (train_job, (stages(runner),)),
        "save": (train_job, (runner.recipe({"train": {"steps": 1}}),)),
        "fill": (fill_job, ()),
        "embed": (embed_job, (runner.write(recipe, "embedded"),)),
    }


NAMES = ("training", "stages", "save", "fill", "embed")
WAYS = ("moment", "change", "disk")


def interruptions(
    make_job: Callable[..., Job], arguments: Sequence[Any], how: str, least: int, folder: Path
) -> int:
    """Interrupt a job at least so often; return how often it was."""
    trial, count = Trial.of(make_job(*arguments), folder), 0
    chance = random.Random(f"{folder.name} {how}")
    while count < least:
        count += trial.interrupt(chance, how)
    return count


@pytest.fixture(scope="module")
def fresh_process() -> Iterator[ProcessPoolExecutor]:
    """A process that forks the attempts.

    The tests' own may have run LanceDB, whose threads do not survive a fork: the child waits for
    ever.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.slow
@pytest.mark.timeout(3600)  # 300 interruptions of a busy machine take long
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_interrupted_ends_as_what_is_not(
    runner: Any,
    name: str,
    how: str,
    tmp_path: Path,
    fresh_process: ProcessPoolExecutor,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if (name, how) == ("embed", "disk"):
        pytest.skip("the index writes by itself, not through Python")
    least = max(1, request.config.getoption("--kills") // (len(NAMES) * len(WAYS)))
    source = job_sources(runner)[name]
    count = fresh_process.submit(interruptions, *source, how, least, tmp_path / name).result()
    with capsys.disabled():
        sys.stdout.write(f"\n{name}, {how}: {count} interruptions, all equal\n")
