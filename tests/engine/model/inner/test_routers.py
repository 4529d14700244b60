"""A mixture of experts in a recipe: what its routers do is logged, and their loss trained."""

from __future__ import annotations

from typing import Any

import pytest

from sensorium.engine.utils import read_metrics
from sensorium.tests.backbones.stack.test_routing import SIZES

KINDS = {"mixtral": {"num_local_experts": 4}, "qwen3_moe": {"num_experts": 4}}


def first_step(runner: Any, kind: str, weight: float) -> dict[str, float]:
    """Return what the first step of a run logs."""
    backbone = {
        "type": "causal",
        "config": {"model_type": kind, **SIZES, **KINDS[kind]},
        "tokenizer": "bytes",
        "options": {"output_router_logits": True, "router_aux_loss_coef": weight},
    }
    data = {"train": {"source": "digits", "split": "train", "limit": 8}}
    task = {"type": "language_modeling", "text": "{caption}", "data": data}
    runner.train(
        {
            "backbone": backbone,
            "tasks": {"words": task},
            "train": {"steps": 1, "batch_size": 4, "log_every": 1, "optimizer": {"lr": 1e-3}},
        },
        f"run-{weight}",
    )
    return next(line for line in read_metrics(runner.folder / f"run-{weight}") if "loss" in line)


@pytest.mark.parametrize("kind", KINDS)
def test_the_total_has_the_routers_loss_and_the_log_their_statistics(
    runner: Any, kind: str
) -> None:
    without, weighted = (first_step(runner, kind, weight) for weight in (0.0, 0.5))
    balance, busiest = (
        next(value for name, value in weighted.items() if name.endswith(f"router_{key}"))
        for key in ("balance", "busiest")
    )
    assert balance > 0 and 0.25 <= busiest <= 1
    assert weighted["loss"] - without["loss"] == pytest.approx(0.5 * balance, rel=1e-3)
