"""A model in shards (FSDP2) learns what a whole one learns, whatever each process has to run."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from process_recipes import TEXT, captions, descend, pairs, unreadable
from recipe_changes import train
from safetensors.torch import load_file

from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.conftest import Runner

PARTS = Path(__file__).parents[2] / "tiny_parts.py"
pytestmark = pytest.mark.slow

SETTINGS = train(
    steps=6,
    log_every=1,
    optimizer={"type": "sgd", "lr": 0.3},
    schedule="constant",
    checkpoint={"every": 6},
    max_grad_norm=0.5,
    parallel="fsdp",
)
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
GPT2 |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
DECODER = {"type": "causal", "config": GPT2, "tokenizer": "bytes", "weights": "none"}
FROZEN = {"inputs": {"image": {"encoder": {"freeze": True}}}}
HELD = {"data": {"train": {"holdout": 0.2}}}
VALIDATED = {"tasks": {"digit": HELD, "caption": {**HELD, "max_new_tokens": 4}}}


def language(runner: Any, **backbone: Any) -> dict[str, Any]:
    """A decoder of GPT-2's shape alone, with tokens that its task adds."""
    rows = [{"text": f"line {i} of {'many ' * (i % 4)}lines"} for i in range(24)]
    (runner.folder / "lines.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    data = {"train": {"source": "json", "path": str(runner.folder / "lines.jsonl")}}
    task = {"type": "language_modeling", "text": "{text}", "data": data}
    task["objectives"] = {"causal": 1, "fill_in_the_middle": 1}
    return {
        "backbone": {**DECODER, **backbone},
        "tasks": {"lines": task},
        "train": {"log_every": 1},
    }


def too_long(runner: Any) -> dict[str, Any]:
    """Rows of which half are longer than the decoder can read, which it finds in its forward."""
    gone = dict.fromkeys(("name", "options"))
    data = {"tasks": {"caption": {"data": {"train": {"on_error": "skip"}}}}}
    recipe = runner.both(captions(runner), {"backbone": {**gone, **DECODER}}, data)
    del recipe["inputs"]["image"], recipe["tasks"]["digit"]
    return dict(recipe)


def staged(runner: Any) -> dict[str, Any]:
    first = {
        "name": "head",
        "inputs": {"image": {"encoder": {"freeze": True}}},
        "train": {"steps": 2},
    }
    second = {"name": "all", "keep_optimizer": True, "train": {"steps": 4}}
    return {**runner.recipe(SETTINGS), "stages": [first, second]}


def cases(runner: Any) -> dict[str, dict[str, Any]]:
    uneven, torn = captions(runner), unreadable(runner)
    lora = {"inputs": {"image": {"encoder": {"lora": {"r": 2}}}}, "backbone": {"lora": {"r": 2}}}
    chunks = {"tasks": {"match": {"gradcache_chunk_size": 1}}}
    validate = train(validate={"every": 3, "metric": "digit/accuracy"})
    return {
        "plain": runner.recipe(SETTINGS, train(optimizer={"type": "adamw", "lr": 0.001})),
        "uneven": runner.both(SETTINGS, uneven),
        "accumulated": runner.both(SETTINGS, uneven, train(gradient_accumulation_steps=2)),
        "recomputed": runner.both(SETTINGS, uneven, train(activation_checkpointing=True)),
        "unclipped": runner.recipe(SETTINGS, train(max_grad_norm=None)),
        "adapted": runner.both(SETTINGS, uneven, lora),
        "torn": runner.changed(torn, SETTINGS),
        "torn_cached": runner.changed(torn, SETTINGS, FROZEN),
        "too_long": runner.changed(too_long(runner), SETTINGS),
        "shared": runner.changed(pairs(runner, TEXT), SETTINGS),
        "chunks": runner.changed(pairs(runner, TEXT), SETTINGS, chunks),
        "shared_stack": runner.changed(
            pairs(runner, {"share": "backbone"}, backbone=runner.both()["backbone"]), SETTINGS
        ),
        "gpt2": runner.changed(language(runner), SETTINGS),
        "gpt2_frozen": runner.changed(language(runner, freeze={"last": 1}), SETTINGS),
        "validated": runner.both(SETTINGS, uneven, VALIDATED, validate),
        "staged": staged(runner),
    }


NAMES = [
    "plain",
    "uneven",
    "accumulated",
    "recomputed",
    "unclipped",
    "adapted",
    "torn",
    "torn_cached",
    "too_long",
    "shared",
    "chunks",
    "shared_stack",
    "gpt2",
    "gpt2_frozen",
    "validated",
    "staged",
]


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def runs(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Each recipe, trained by two processes as `NAME_2`, by one on batches twice as large as
    `NAME_1`, and not at all as `NAME_0`."""
    if request.param == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two devices")
    folder = tmp_path_factory.mktemp("shards")
    shutil.copy(PARTS, folder / PARTS.name)
    environment = {"SENSORIUM_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    runner = Runner(folder, {**environment, "OMP_NUM_THREADS": "1"})
    recipes = cases(runner)
    assert [*recipes] == NAMES
    sizes = {2: (train(batch_size=2), "_2"), 1: (train(batch_size=4), "_1")}
    written = {
        count: {name + end: runner.changed(recipe, size) for name, recipe in recipes.items()}
        for count, (size, end) in sizes.items()
    }
    for name, recipe in recipes.items():
        idle = {**runner.changed(recipe, train(steps=0, validate=None)), "stages": []}
        written[1][f"{name}_0"] = idle
    for count, some in written.items():
        descend(runner, some, count, request.param)
    return Runs(runner, 1e-5 if request.param == "cpu" else 1e-4)


@dataclass
class Runs:
    """The runs of all recipes. tolerance: of losses and weights."""

    runner: Any
    tolerance: float

    def weights(self, run: str) -> dict[str, torch.Tensor]:
        return load_file(self.runner.folder / run / "model.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_shards_learn_what_one_process_learns(runs: Runs, name: str) -> None:
    first, second = (runs.runner.losses(f"{name}_{count}") for count in (1, 2))
    assert len(first) == 6 and [(s, t) for s, t, _ in first] == [(s, t) for s, t, _ in second]
    assert [x for *_, x in first] == pytest.approx([x for *_, x in second], abs=runs.tolerance)
    before, alone, together = (runs.weights(f"{name}_{count}") for count in range(3))
    moved = 0.0
    for key, expected in alone.items():
        torch.testing.assert_close(together[key], expected, rtol=0, atol=runs.tolerance, msg=key)
        moved = max(moved, float((expected - before[key]).abs().max()))
    assert moved > 100 * runs.tolerance  # far more than the two may differ by


@pytest.mark.parametrize("name", NAMES)
def test_each_process_holds_a_share(runs: Runs, name: str) -> None:
    """Of two, half of all that is not served from the cache, and of the optimizer's state."""
    shares = [json.loads(p.read_text()) for p in runs.runner.folder.glob(f"{name}_2.share*.json")]
    (alone,) = [json.loads(p.read_text()) for p in runs.runner.folder.glob(f"{name}_1.share*.json")]
    assert len(shares) == 2
    assert alone["held"] == alone["all"] == shares[0]["all"]
    for share in shares:
        split = share["all"] - share["whole"]
        assert split > 0 and 0.3 * split < share["held"] - share["whole"] < 0.7 * split
        assert not share["whole"] or "cached" in name


def test_killed_and_resumed_by_two_processes_and_by_one(runner: Any) -> None:
    """Each step has the same batches, so that losses are equal to the last bit."""
    settings = train(
        steps=8,
        batch_size=2,
        optimizer={"type": "adamw", "lr": 0.01},
        checkpoint={"every": 2},
        parallel="fsdp",
    )
    recipe = runner.both(settings, captions(runner))
    alone = runner.changed(recipe, train(gradient_accumulation_steps=2))
    runner.train(alone, "whole")
    losses = runner.losses("whole")
    for more, fault in (((), "kill@4"), (("--resume",), "kill@3")):
        done = runner.go(recipe, "run", *more, processes=2, fault=fault)
        assert done.returncode != 0
        before = runner.losses("run")
        assert 0 < len(before) < 8 and before == losses[: len(before)]
    with pytest.raises(ConfigError, match=r"2 processes, there are now 1, .*accumulation_steps: 2"):
        runner.train(recipe, "run", resume=True)
    changes = ["train.gradient_accumulation_steps"]
    runner.train(alone, "run", resume=True, allow_changes=changes)
    assert runner.losses("run") == losses
    first, second = (
        load_file(runner.folder / run / "model.safetensors") for run in ("whole", "run")
    )
    assert all(torch.equal(second[key], value) for key, value in first.items())
