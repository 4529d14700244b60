"""Whatever interrupts it, a job that is begun again leaves what an uninterrupted one leaves.

`pytest tests/engine/checkpoint/test_kills.py -m slow --kills 300` interrupts 300 times.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
from kills import Job, Trial, embed_job, fill_job, train_job

NOISY = {"dropout": 0.3, "noise": 0.1, "norm": True}
STAGE = {"train": {"steps": 4, "checkpoint": {"every": 2}}}


def two_tasks(shop: Any) -> dict[str, Any]:
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
    found: dict[str, Any] = shop.both(changes)
    return found


def stages(shop: Any) -> dict[str, Any]:
    """Three stages: the head alone, the encoder too, with the optimizer of the one before."""
    frozen = {"inputs": {"image": {"encoder": {"freeze": True}}}}
    noisy = {"inputs": {"image": {"encoder": NOISY}}}
    first, last = {"name": "head", **frozen}, {"name": "more", "keep_optimizer": True}
    return {**shop.recipe(STAGE, noisy), "stages": [first, {"name": "all"}, last]}


def jobs(shop: Any) -> dict[str, Job]:
    data = {"test": {"source": "digits", "split": "test", "limit": 30}}
    recipe = shop.recipe({"tasks": {"digit": {"data": data}}})
    return {
        "training": train_job(two_tasks(shop)),
        "stages": train_job(stages(shop)),
        "save": train_job(shop.recipe({"train": {"steps": 1}})),
        "fill": fill_job(),
        "embed": embed_job(shop.write(recipe, "embedded")),
    }


NAMES = ("training", "stages", "save", "fill", "embed")
WAYS = ("moment", "change", "disk")


@pytest.mark.slow
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_interrupted_ends_as_what_is_not(
    shop: Any,
    name: str,
    how: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if (name, how) == ("embed", "disk"):
        pytest.skip("the index writes by itself, not through Python")
    trial = Trial.of(jobs(shop)[name], tmp_path / "trial")
    total = request.config.getoption("--kills")
    wanted, count = max(1, total // (len(NAMES) * len(WAYS))), 0
    chance = random.Random(f"{name} {how}")
    while count < wanted:
        count += trial.interrupt(chance, how)
    with capsys.disabled():
        sys.stdout.write(f"\n{name}, {how}: {count} interruptions, all equal\n")
