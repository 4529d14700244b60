"""A policy against hand-made sequences: what it remembers, when it asks, what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.engine.data import observation_windows, tile_to_window
from sensorium.engine.recipe import Env, TaskSection
from sensorium.engine.rollout.observation_history import History
from sensorium.engine.rollout.policy import Policy
from sensorium.engine.utils import ConfigError, RuntimeFailure

STEPS = 4


class Teller:
    """Asked about rows, says chunks of one number: 10 for its first call, 20 for the second, and
    the step of the chunk; `rows` is what it was asked."""

    def __init__(self) -> None:
        self.rows: list[list[dict[str, Any]]] = []

    def __call__(self, rows: list[dict[str, Any]]) -> list[np.ndarray]:
        self.rows.append(rows)
        return [10.0 * len(self.rows) + np.arange(STEPS)[:, None] for _ in rows]


def drive(policy: Policy, count: int) -> list[float]:
    """Single actions for the states 0, 1, 2, ..."""
    return [float(policy.step({"state": np.array([float(i)])})[0]) for i in range(count)]


def test_a_chunk_is_executed_to_its_end() -> None:
    ask = Teller()
    assert drive(Policy(ask, {"state": "state"}), 6) == [10, 11, 12, 13, 20, 21]


@pytest.mark.parametrize("execute", [1, 2, 3, 4])
def test_a_part_of_a_chunk_is_executed(execute: int) -> None:
    ask = Teller()
    policy = Policy(ask, {"state": "state"}, n_action_steps=execute)
    expected = [10 * (1 + i // execute) + i % execute for i in range(9)]
    assert drive(policy, 9) == expected
    assert policy.calls == -(-9 // execute) and policy.seconds > 0


def test_more_than_a_chunk_cannot_be_executed() -> None:
    with pytest.raises(
        ConfigError, match=r"env.n_action_steps: found 5, and a chunk has 4 steps; use 4"
    ):
        drive(Policy(Teller(), {"state": "state"}, n_action_steps=5), 1)


@pytest.mark.parametrize("rate", [0.0, 0.01, 1.0])
def test_an_ensemble_weighs_all_chunks_that_speak_of_a_step(rate: float) -> None:
    """ACT: the chunk of step s says 10 (s + 1) + t - s of step t; the oldest counts most."""
    result = drive(Policy(Teller(), {"state": "state"}, temporal_ensemble_coeff=rate), 9)
    for t, value in enumerate(result):
        born = range(max(0, t - STEPS + 1), t + 1)
        predicted = [10 * (s + 1) + t - s for s in born]
        weights = [np.exp(-rate * i) for i in range(len(predicted))]
        np.testing.assert_allclose(value, np.dot(weights, predicted) / np.sum(weights), rtol=1e-6)


def test_one_way_of_ensembling_is_to_listen_to_the_oldest() -> None:
    result = drive(Policy(Teller(), {"state": "state"}, temporal_ensemble_coeff=1e6), 6)
    assert result == [10, 11, 12, 13, 23, 33]


def test_an_ensemble_may_ask_less_often() -> None:
    result = drive(
        Policy(Teller(), {"state": "state"}, temporal_ensemble_coeff=0.0, n_action_steps=2), 4
    )
    assert result == [10, 11, (12 + 20) / 2, (13 + 21) / 2]


@given(st.integers(-4, 0), st.integers(0, 4), st.integers(1, 9))
def test_history_is_the_window_that_training_cut(first: int, more: int, frames: int) -> None:
    """Each step gives what the row of that frame would hold, edges repeated."""
    last = min(0, first + more)
    states = np.arange(frames, dtype=np.float32)[:, None] + [[0.0, 100.0]]
    history = History({"state": (first, last)})
    for now in range(frames):
        history.append({"state": states[now], "image": now})
        places = np.clip(now + np.arange(first, last + 1), 0, None)
        row = history.row()
        np.testing.assert_array_equal(row["state"], states[places])
        assert row["image"] == now and row["state"].dtype == np.float32


def test_windows_of_a_recipe_become_history() -> None:
    data = {"train": {"source": "metaworld", "delta_frames": {"state": [-1, 0], "action": [0, 19]}}}
    section = TaskSection.model_validate({"type": "control", "data": data})
    assert observation_windows(section, ("state", "image"), "tasks.act.data") == {"state": (-1, 0)}
    with pytest.raises(
        ConfigError, match=r"delta_frames.action: found \[0, 19\], which looks 19 frames"
    ):
        observation_windows(section, ("action",), "tasks.act.data")


def test_a_single_frame_stands_for_its_whole_window() -> None:
    frame = np.array([1.0, 2.0])
    np.testing.assert_array_equal(tile_to_window(frame, (-1, 0)), [frame, frame])
    whole = np.stack([frame, frame + 1])
    np.testing.assert_array_equal(tile_to_window(whole, (-1, 0)), whole)
    assert len(tile_to_window([frame, frame, frame], (-1, 0))) == 3


def test_rows_hold_streams_texts_and_the_last_action() -> None:
    ask = Teller()
    observe = {"state": ["hand", "goal"], "image": "corner"}
    last: Any = {"previous_action": "previous_action", "initial_action": np.array([7.0])}
    policy = Policy(ask, observe, spans={"state": (-1, 0)}, n_action_steps=1, **last)
    policy.reset([{"instruction": "push"}])
    picture = np.zeros((2, 2, 3), np.uint8)
    for i in range(2):
        policy.step({"hand": np.array([i]), "goal": np.array([9]), "corner": picture})
    first, second = (rows[0] for rows in ask.rows)
    assert first["instruction"] == "push" and np.array_equal(first["image"], picture)
    np.testing.assert_array_equal(second["state"], [[0, 9], [1, 9]])
    np.testing.assert_array_equal(first["previous_action"], [7])
    np.testing.assert_array_equal(second["previous_action"], [10])


@pytest.mark.parametrize("initial_action", [np.array([7.0]), "sent"])
def test_what_was_executed_before_an_episode_is_told(initial_action: Any) -> None:
    """By numbers, or by the observation; at the first step alone, and again in the next episode."""
    ask = Teller()
    last: Any = {"previous_action": "previous_action", "initial_action": initial_action}
    policy = Policy(ask, {"state": "state"}, n_action_steps=1, **last)
    for _ in range(2):
        policy.reset()
        for _ in range(2):
            policy.step({"state": np.zeros(1), "sent": np.array([7.0])})
    sent = [float(rows[0]["previous_action"][0]) for rows in ask.rows]
    assert sent == [7, 10, 7, 30]


def test_a_model_that_reads_no_last_action_is_told_none() -> None:
    ask = Teller()
    Policy(ask, {"previous_action": "sensor"}).step({"sensor": np.array([3.0])})
    np.testing.assert_array_equal(ask.rows[0][0]["previous_action"], [3])


@pytest.mark.parametrize("span", [None, (0, 0), (-2, 0)])
def test_an_observation_that_is_written_again_changes_no_history(span: Any) -> None:
    """Also where rows keep what was seen, and where streams share an array."""
    ask, buffer = Teller(), np.zeros(1, np.float32)
    spans = {} if span is None else {"state": span}
    policy = Policy(ask, {"state": "buffer", "twin": "buffer"}, spans=spans, n_action_steps=1)
    for step in range(4):
        buffer[:] = step
        policy.step({"buffer": buffer})
    buffer[:] = -1
    for step, rows in enumerate(ask.rows):
        first, last = span or (0, 0)
        expected = np.clip(step + np.arange(first, last + 1), 0, None)
        np.testing.assert_array_equal(np.ravel(rows[0]["state"]), expected)
        np.testing.assert_array_equal(rows[0]["twin"], [step])


def test_an_action_that_is_written_over_changes_no_history() -> None:
    ask = Teller()
    last: Any = {"previous_action": "previous_action", "initial_action": np.array([7.0])}
    policy = Policy(ask, {"state": "state"}, n_action_steps=1, **last)
    for _ in range(2):
        policy.step({"state": np.zeros(1)})[:] = -1
    np.testing.assert_array_equal(ask.rows[1][0]["previous_action"], [10])


class Echo:
    """Says of each row what its own history holds."""

    def __call__(self, rows: list[dict[str, Any]]) -> list[np.ndarray]:
        return [np.repeat(row["state"].mean(0)[None], STEPS, axis=0) for row in rows]


def test_many_at_once_equal_one_by_one() -> None:
    """Also where one of them has ended, and goes on asking at steps of its own."""
    states = np.random.default_rng(0).normal(size=(3, 7, 2)).astype(np.float32)
    options: dict[str, Any] = {"spans": {"state": (-2, 0)}, "n_action_steps": 2}
    alone = []
    for i in range(3):
        policy = Policy(Echo(), {"state": "state"}, **options)
        alone.append([policy.step({"state": state}) for state in states[i]])
    together = Policy(Echo(), {"state": "state"}, **options)
    together.reset([{}, {}, {}])
    for t in range(7):
        who = [0, 1, 2] if t < 3 else [0, 2]
        actions = together.step([{"state": states[i, t]} for i in who], who)
        np.testing.assert_array_equal(actions, [alone[i][t] for i in who])
    assert together.calls == 4


def test_a_reset_forgets() -> None:
    policy = Policy(Teller(), {"state": "state"}, spans={"state": (-1, 0)})
    drive(policy, 3)
    policy.reset()
    assert drive(policy, 1) == [20]


def test_actions_are_clipped_to_the_space() -> None:
    bounds = (np.array([-1.0], np.float32), np.array([11.5], np.float32))
    policy = Policy(Teller(), {"state": "state"}, bounds=bounds)
    assert drive(policy, 4) == [10, 11, 11.5, 11.5]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_sent(bad: float) -> None:
    """Not even where clipping would make a number of it."""

    def ask(rows: Sequence[Any]) -> list[np.ndarray]:
        chunk = np.zeros((STEPS, 3), np.float32)
        chunk[2, 1] = bad
        return [chunk for _ in rows]

    bounds = (np.full(3, -1, np.float32), np.full(3, 1, np.float32))
    policy = Policy(ask, {"state": "state"}, bounds=bounds)
    policy.reset([{}, {}], ["left arm"])
    seen = {"state": np.zeros(1)}
    for _ in range(2):
        policy.step([seen, seen])
    with pytest.raises(
        RuntimeFailure, match=r"left arm, step 2: the model returns .* number 1 .* sent"
    ):
        policy.step([seen, seen])


@pytest.mark.parametrize(
    ("seen", "line"),
    [
        ({"stat": np.zeros(2)}, r"no 'state'; did you mean 'stat'\?; the stream state reads it"),
        ({"state": None}, "has no 'state'; there are none; the stream"),
        ({"state": np.array([0.0, np.nan])}, "state holds a value that is not finite"),
    ],
)
def test_what_is_not_seen_is_named(seen: dict[str, Any], line: str) -> None:
    policy = Policy(Teller(), {"state": "state"})
    policy.reset([{}], ["push, seed 3"])
    with pytest.raises(RuntimeFailure, match=rf"push, seed 3, step 0: .*{line}"):
        policy.step(seen)


def test_instructions_of_a_section() -> None:
    one = Env.model_validate({"name": "a/x", "instruction": "go"})
    assert one.texts("a/x") == ["go"] and one.names == ["a/x"]
    many = Env.model_validate({"name": ["a/x", "a/y"], "instruction": {"x": ["go", "run"]}})
    assert many.texts("a/x") == ["go", "run"] and many.texts("a/y") == []
