"""What every form of saying a chunk must hold, on real decoders of tiny size."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

STEPS = 12


@pytest.mark.quick_share(3)
def test_the_loss_is_a_sum_over_rows_and_reaches_everything(joined: Any, rows: Any) -> None:
    data = rows()
    joined.eval()  # the latent of the VAE is drawn in training
    whole = joined.loss(data)
    parts = [joined.loss([row]) for row in data]
    torch.testing.assert_close(sum(p.total for p in parts), whole.total, rtol=1e-4, atol=1e-4)
    assert sum(int(p.count) for p in parts) == int(whole.count)
    whole.total.backward()
    assert all(p.grad is not None for p in [*joined.task.parameters(), *joined.state.parameters()])


@pytest.mark.quick_share(3)
def test_padded_actions_decide_nothing(joined: Any, rows: Any) -> None:
    joined.eval()
    data, other = rows(), rows()
    for row in other:
        row["action"] = np.where(row["action_padding"][:, None], 1e3, row["action"])
    torch.testing.assert_close(joined.loss(other).total, joined.loss(data).total)
    moved = rows()
    for row in moved:
        row["action"] = row["action"] * np.float32(0.5)
    assert not torch.allclose(joined.loss(moved).total, joined.loss(data).total)


@pytest.mark.quick_share(3)
def test_predictions_are_chunks_that_metrics_take(joined: Any, rows: Any) -> None:
    data = rows()
    result = joined.predict(data)
    assert json.loads(json.dumps(result)) == result
    assert np.isfinite([one["actions"] for one in result]).all()
    assert np.shape([one["actions"] for one in result]) == (len(data), STEPS, 2)
    assert joined.predict(data) == result
    metrics = joined.task.metrics()
    metrics.update(result, joined.batch(data)[0].references)
    values = metrics.compute()
    assert {"l1", "mse", "decodable"} <= set(values)
    assert ("token_accuracy" in values) == joined.task.action_decoder.discrete


@pytest.mark.quick_share(3)
def test_a_robot_asks_without_actions(joined: Any, rows: Any) -> None:
    """A row of a rollout gives what it would with its actions; the batch does not matter."""
    data = rows()
    bare = [{k: v for k, v in row.items() if not k.startswith("action")} for row in data]
    result, requested = joined.predict(data), joined.predict(bare)
    assert requested == result
    alone = np.array([joined.predict([row])[0]["actions"] for row in bare])
    np.testing.assert_allclose(alone, [one["actions"] for one in result], atol=1e-4)
    with pytest.raises(ValueError, match=r"row '0': has no actions to learn.*'action'"):
        joined.loss(bare)


SLOW = [("bins", "causal", 120), ("fast", "causal", 200), ("parallel", "seq2seq", 80)]
LEARNS = [
    *[(case, "causal", 60) for case in ("parallel", "regressed", "vae", "fourier")],
    *[pytest.param(*case, marks=pytest.mark.slow) for case in SLOW],
]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "kind", "count"), LEARNS)
def test_every_form_learns(join: Any, rows: Any, case: str, kind: str, count: int) -> None:
    """Rows not seen are at least twice nearer than the mean chunk is to them."""
    joined = join(case, kind).train()
    data, unseen = rows(256, seed=1), rows(40, seed=2)
    optimizer = torch.optim.AdamW(joined.parameters(), lr=8e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, count)
    for step in range(count):
        places = np.random.default_rng(step).integers(0, len(data), 32)
        loss = joined.loss([data[i] for i in places])
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        nn.utils.clip_grad_norm_(joined.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    expected = np.array([row["action"] for row in unseen])
    result = np.array([one["actions"] for one in joined.predict(unseen)])
    blind = np.mean([row["action"] for row in data], axis=0)
    assert 2 * np.abs(result - expected).mean() < np.abs(blind - expected).mean()
