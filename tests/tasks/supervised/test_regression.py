"""Regression: standardised inside, the columns' own units outside."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.preprocessing import StandardScaler
from torch import nn

from sensorium.tasks.batch import Batch
from sensorium.tasks.supervised.regression import NumberMetrics, Regression
from sensorium.tasks.supervised.standardizer import Standardizer
from sensorium.testing.context import prepare_batch

ROWS = [{"age": 20.0 + 7 * i, "mass": 1e6 * (i % 3) - 4e5} for i in range(6)]
TABLE = np.array([[row["age"], row["mass"]] for row in ROWS])


def scale_of(rows: list[dict[str, float]], *columns: str) -> Standardizer:
    scale = Standardizer()
    scale.set_columns(columns)
    scale.fit(rows)
    return scale


@pytest.fixture
def encode(make_streams, make_ragged):  # type: ignore[no-untyped-def]
    return make_streams(image=make_ragged(6, 5))


@pytest.fixture
def build(make_head):  # type: ignore[no-untyped-def]
    def build(target: str | list[str], **options: object) -> tuple[Regression, Batch]:
        scale = Standardizer()
        task = Regression(input="image", target=target, scale=scale, **options)
        scale.fit(ROWS)
        torch.manual_seed(0)
        task.heads["head"] = make_head(16, task.head_uses["head"].out_dim)
        return task, prepare_batch(task, ROWS, list("abcdef"))

    return build


def test_standardised_values_are_scikit_learn_s() -> None:
    scale = scale_of(ROWS, "age", "mass")
    table = torch.tensor(TABLE)
    expected = StandardScaler().fit_transform(TABLE)
    np.testing.assert_allclose(scale.encode(table).numpy(), expected, atol=1e-12)
    torch.testing.assert_close(scale.decode(scale.encode(table)), table)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9])
def test_a_constant_column_is_only_shifted(value: float) -> None:
    scale = scale_of([{"x": value}] * 7, "x")
    result = scale.encode(torch.tensor([[value], [value + 2]], dtype=torch.float64))
    torch.testing.assert_close(result, torch.tensor([[0.0], [2.0]], dtype=torch.float64))


def test_what_was_learned_survives_json() -> None:
    scale, again = scale_of(ROWS, "age", "mass"), Standardizer()
    again.load_state(json.loads(json.dumps(scale.state())))
    assert again.state() == scale.state()
    with pytest.raises(ValueError, match="fitted on age, mass, the target is age"):
        again.set_columns(["age"])


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "old", [1.0]])
def test_a_cell_that_is_no_number_is_named(build, value) -> None:  # type: ignore[no-untyped-def]
    task, _ = build("age")
    with pytest.raises(ValueError, match=r"'age' holds .* expected a finite number") as e:
        prepare_batch(task, [{"age": value}])
    assert "\n" not in str(e.value)


def test_a_column_that_is_not_there_is_named(build) -> None:  # type: ignore[no-untyped-def]
    task, _ = build(["age", "mass"])
    with pytest.raises(ValueError, match="'mass' is not in the row, which has 'age'"):
        prepare_batch(task, [{"age": 1.0}])
    with pytest.raises(ValueError, match="no row to learn age from"):
        scale_of([], "age")


@pytest.mark.parametrize("target", [[], ["age", "age"]])
def test_a_wrong_target_is_named(target: list[str]) -> None:
    with pytest.raises(ValueError, match="target: found"):
        Regression(input="image", target=target, scale=Standardizer())


@pytest.mark.parametrize("target", ["age", ["mass", "age"]])
@pytest.mark.parametrize(
    ("error", "reference"), [("mse", nn.MSELoss), ("smooth_l1", nn.SmoothL1Loss)]
)
def test_the_loss_is_torch_s_in_standard_units(build, encode, target, error, reference) -> None:  # type: ignore[no-untyped-def]
    task, batch = build(target, error=error)
    loss = task.loss(batch, encode)
    columns = [target] if isinstance(target, str) else target
    table = np.array([[row[c] for c in columns] for row in ROWS])
    requested = torch.tensor(StandardScaler().fit_transform(table), dtype=torch.float32)
    expected = reference()(task.heads["head"](encode("image")).pooled, requested) * 6
    torch.testing.assert_close(loss.total, expected)
    assert loss.count == 6
    parts = [
        task.loss(prepare_batch(task, ROWS[a:b]), encode.rows(a, b)) for a, b in ((0, 2), (2, 6))
    ]
    torch.testing.assert_close(sum(p.total for p in parts), loss.total)
    loss.total.backward()
    assert torch.equal(encode("image").tokens.grad.abs().sum(-1) > 0, encode("image").mask)


def test_predictions_are_in_the_columns_units(build, encode) -> None:  # type: ignore[no-untyped-def]
    task, batch = build(["age", "mass"])
    result = task.predict(batch, encode)
    raw = task.heads["head"](encode("image")).pooled.detach().double().numpy()
    expected = raw * TABLE.std(0) + TABLE.mean(0)
    np.testing.assert_allclose([[r["age"], r["mass"]] for r in result], expected)
    assert json.loads(json.dumps(result)) == result


def test_metrics_are_scikit_learn_s() -> None:
    result = TABLE + np.random.default_rng(0).normal(size=TABLE.shape) * [3, 1e5]
    metrics = NumberMetrics(["age", "mass"])
    for part in (slice(0, 2), slice(2, 6)):
        prediction = [{"age": a, "mass": b} for a, b in result[part].tolist()]
        metrics.update(prediction, ROWS[part])
    expected = {}
    for k, column in enumerate(("age", "mass")):
        expected[f"{column}/mae"] = mean_absolute_error(TABLE[:, k], result[:, k])
        expected[f"{column}/rmse"] = root_mean_squared_error(TABLE[:, k], result[:, k])
        expected[f"{column}/r2"] = r2_score(TABLE[:, k], result[:, k])
    assert metrics.compute() == pytest.approx(expected)


@pytest.mark.parametrize("expected", [[2.0], [2.0, 2.0, 2.0]])
def test_r2_that_is_not_defined_is_nan(expected: list[float]) -> None:
    metrics = NumberMetrics(["age"])
    metrics.update(
        [{"age": value + 1} for value in expected], [{"age": value} for value in expected]
    )
    result = metrics.compute()
    assert result["mae"] == result["rmse"] == 1.0
    assert math.isnan(result["r2"])


def test_what_has_no_number_can_be_predicted_but_not_learned(build, encode) -> None:  # type: ignore[no-untyped-def]
    task, _ = build("age")
    batch = prepare_batch(task, [{"other": 1}] * 6, list("abcdef"))
    assert len(task.predict(batch, encode)) == 6
    with pytest.raises(ValueError, match="row 'a': has no number; add age"):
        task.loss(batch, encode)
    with pytest.raises(ValueError, match="a row lacks age"):
        task.metrics().update([{"age": 1.0}], batch.references[:1])
    with pytest.raises(ValueError, match="no row was accumulated"):
        task.metrics().compute()
