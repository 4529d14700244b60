"""Chunks as rows hold them, what all of them have in common, and how far predictions are off."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.modalities.action.tokenizers import BinTokenizer
from sensorium.modalities.action.tokenizers.bspline import BSplineTokenizer
from sensorium.tasks.control.control import Control
from sensorium.tasks.control.decoders import Chunk, ChunkStatistics, read_action, read_chunk
from sensorium.tasks.control.metrics import ActionMetrics
from sensorium.testing.context import prepare_batch

STEPS = 12


def test_chunks_are_standardised_by_their_real_samples(rows: Any) -> None:
    data, chunk = rows(30), ChunkStatistics()
    chunk.fit(read_chunk(row, "action") for row in data)
    every = np.concatenate([row["action"][~row["action_padding"]] for row in data]).astype(float)
    np.testing.assert_allclose(chunk.mean, every.mean(0), atol=1e-7)
    np.testing.assert_allclose(chunk.std, every.std(0), atol=1e-7)
    result = chunk.encode(torch.tensor(every))
    torch.testing.assert_close(
        result.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0
    )
    again = ChunkStatistics()
    again.load_state(json.loads(json.dumps(chunk.state())))
    assert again.state() == chunk.state()


@pytest.mark.parametrize("value", [0.0, 1e6, -0.3])
def test_a_joint_that_never_moves_is_only_shifted(value: float) -> None:
    chunk = ChunkStatistics()
    chunk.fit([(np.full((5, 1), value, np.float32), np.zeros(5, bool))] * 3)
    assert chunk.std == [1.0]
    assert chunk.mean == pytest.approx([value])


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({}, "'action' is not in the row, which has no column"),
        ({"action": "left"}, "the column 'action' holds no numbers"),
        ({"action": [0.0, 1.0]}, r"holds \(2,\), expected a chunk \[steps, dof\]; add it"),
        ({"action": [[0.0], [np.nan]]}, "'action' holds nan at step 1, joint 0; expected finite"),
        ({"action": [[0.0, np.inf]]}, "'action' holds inf at step 0, joint 1; expected finite"),
        ({"action": [[0.0]], "action_padding": [True]}, "no step of 'action' lies inside"),
        ({"action": [[0.0]], "action_padding": [False] * 2}, r"'action_padding' is \(2,\), expec"),
    ],
)
def test_a_row_that_holds_no_chunk_is_named(row: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line) as error:
        read_chunk(row, "action")
    assert "\n" not in str(error.value)


def test_what_is_padded_may_be_anything() -> None:
    values = np.array([[1.0], [np.nan]], np.float32)
    result, padding = read_chunk({"action": values, "action_padding": [False, True]}, "action")
    assert np.isfinite(result).all()
    assert padding.tolist() == [False, True]


@pytest.mark.parametrize("shape", [(STEPS + 1, 2), (STEPS, 3)])
def test_another_shape_than_fitted_is_named_with_both(rows: Any, shape: tuple[int, int]) -> None:
    task = Control(prompt="<state>", tokenizer=BinTokenizer(), chunk=ChunkStatistics())
    task.chunk.fit([read_chunk(row, "action") for row in rows()])
    with pytest.raises(ValueError, match=f"{shape[0]} steps and {shape[1]} numbers, the training"):
        prepare_batch(task, [{"action": np.zeros(shape)}])


@pytest.mark.parametrize(
    "cell", [[1.0, 2.0], [[1.0, 2.0]], [[3.0, 4.0], [1.0, 2.0]], np.array([1.0, 2.0])]
)
def test_the_last_action_is_a_cell_or_a_window_of_one(cell: Any) -> None:
    assert read_action({"last": cell}, "last").tolist() == [1.0, 2.0]


@pytest.mark.parametrize("cell", [[np.nan, 0.0], [[[1.0], [2.0]]], 3.0])
def test_a_last_action_that_is_none_is_named(cell: Any) -> None:
    with pytest.raises(ValueError, match="previous_action: the column 'last'"):
        read_action({"last": cell}, "last")


def test_a_pinned_start_is_asked_for_and_kept(join: Any, rows: Any) -> None:
    """Sample 0 is the last action executed, exactly; without one there is a clear line."""
    joined, data = join("pinned"), rows()
    result = [one["actions"][0] for one in joined.predict(data)]
    np.testing.assert_allclose(result, [row["previous_action"] for row in data], atol=1e-6)
    first = [{**row, "previous_action": None} for row in data]
    for row in first:
        del row["previous_action"]
    starts = [one["actions"][0] for one in joined.predict(first)]
    np.testing.assert_allclose(starts, [row["action"][0] for row in data], atol=1e-6)
    with pytest.raises(ValueError, match="row '0': the tokenizer begins at the action executed"):
        joined.predict([{k: row[k] for k in ("state", "word")} for row in data])


def scored(
    tokenizer: Any, predicted: np.ndarray, expected: np.ndarray, padding: Any
) -> dict[str, float]:
    metrics = ActionMetrics(tokenizer)
    for part in (slice(0, 2), slice(2, None)):
        chunk = Chunk(torch.tensor(predicted[part]).float(), torch.tensor(padding[part]))
        tokens = tokenizer.encode(chunk.actions, padding=chunk.padding).tolist()
        scored_rows = zip(predicted[part].tolist(), tokens, strict=True)
        targets = zip(expected[part].tolist(), padding[part].tolist(), strict=True)
        metrics.update(
            [{"actions": a, "tokens": t} for a, t in scored_rows],
            [{"actions": a, "padding": p} for a, p in targets],
        )
    return metrics.compute()


def test_errors_are_those_of_real_samples_in_the_robot_s_units(rows: Any) -> None:
    data = rows(6, steps=True)
    expected = np.stack([row["action"] for row in data]).astype(float)
    padding = np.stack([row["action_padding"] for row in data])
    tokenizer = BSplineTokenizer(num_basis=4, degree=3, grippers=[1])
    tokenizer.fit(zip(expected, padding, strict=True))
    result = expected + np.random.default_rng(0).normal(size=expected.shape) * [0.1, 0.0]
    values = scored(tokenizer, result, expected, padding)
    error = np.abs(result - expected)[~padding]
    assert values["l1"] == pytest.approx(error.mean())
    assert values["mse"] == pytest.approx(np.square(error).mean())
    assert values["l1_joints"] == pytest.approx(error[:, 0].mean())
    assert values["l1_gripper"] == 0
    assert values["jerk"] > values["jerk_data"] > 0
    assert values["decodable"] == 1
    assert 0 < values["token_accuracy"] < 1
    exact = scored(tokenizer, expected, expected, padding)
    assert (exact["l1"], exact["token_accuracy"]) == (0, 1)
    assert exact["jerk"] == exact["jerk_data"]


def test_actions_beyond_the_bounds_are_counted(rows: Any) -> None:
    data = np.stack([row["action"] for row in rows(40)])
    tokenizer = BSplineTokenizer(num_basis=4, degree=3, quantiles=(0.0, 1.0))
    tokenizer.fit(data)
    none = np.zeros(data.shape[:2], bool)
    assert scored(tokenizer, data, data, none)["clipped"] == 0
    assert scored(tokenizer, data, 10 * data, none)["clipped"] > 0.5


def test_metrics_want_actions() -> None:
    with pytest.raises(ValueError, match="no row was accumulated"):
        ActionMetrics(BinTokenizer()).compute()
    with pytest.raises(ValueError, match="a row has no actions"):
        ActionMetrics(BinTokenizer()).update([{"actions": []}], [{"prompt": []}])
