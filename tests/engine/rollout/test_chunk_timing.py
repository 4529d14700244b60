"""A policy that knows the demonstration executes it: each action in its order, at its own step.

The model is composed from a recipe, and its decoder form is made to predict the tokens of the
demonstrated chunk; windows, tokenizers, starts, history, chunks and ensembles are the real ones.
The environment only counts its steps, in an observation that is always the same array.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from sensorium.engine.model import resolve_and_fit
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.rollout import rollout
from sensorium.tasks.control.control import ACTION_DECODERS
from sensorium.tests.engine.rollout.ramps import (
    SEEN,
    SPLINE,
    TASKS,
    Counter,
    Oracle,
    demonstrated,
    recipe,
)

PINNED = [name for name, task in TASKS.items() if task["tokenizer"] is SPLINE]
WINDOWS = [(0, 9), (-1, 8), (-3, 7)]
CASES = [
    *itertools.product(TASKS, WINDOWS, [0]),
    *((name, (-1, 8), 1) for name in PINNED),
]
EXECUTIONS: list[dict[str, Any]] = [
    *({"n_action_steps": n} for n in (None, 1, 3, 7)),
    *(
        {"temporal_ensemble_coeff": m, "n_action_steps": n}
        for m in (0.0, 0.1, 5.0)
        for n in (None, 2)
    ),
]


def test_every_form_is_in_the_table() -> None:
    assert {task["action_decoder"] for task in TASKS.values() if "action_decoder" in task} == set(
        ACTION_DECODERS
    )


@pytest.mark.quick_share(36)
@pytest.mark.filterwarnings("ignore:.*share an object:UserWarning")  # that is its purpose
@pytest.mark.parametrize(
    ("name", "window", "start_order"),
    CASES,
    ids=str,
)
def test_the_demonstration_is_executed_as_it_was_recorded(
    name: str, window: tuple[int, int], start_order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever frame a chunk begins at, however much of it is executed, and with an ensemble."""
    plan = resolve_and_fit(parse_recipe(recipe(TASKS[name], window, start_order)))
    oracle, section = Oracle(plan, monkeypatch), plan.recipe.env
    expected = demonstrated(np.arange(SEEN))
    for execution in EXECUTIONS:
        Counter.executed.clear()
        rollout(oracle, section.model_copy(update=execution), seeds=range(2))
        assert list(Counter.executed) == [0, 1]
        for actions in Counter.executed.values():
            assert len(actions) == SEEN
            # A shift of one frame is 1 away.
            np.testing.assert_allclose(actions, expected, atol=0.3)


@pytest.mark.quick_share(9)
@pytest.mark.parametrize(("name", "window", "start_order"), CASES, ids=str)
def test_act_begins_with_the_action_of_now(
    name: str, window: tuple[int, int], start_order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = resolve_and_fit(parse_recipe(recipe(TASKS[name], window, start_order)))
    oracle = Oracle(plan, monkeypatch)
    for frame in (0, 1, 5):
        inputs: dict[str, Any] = {"state": np.array([float(frame)])}
        if start_order:
            inputs["previous_action"] = demonstrated(np.array(frame - 1)) if frame else None
        actions = oracle.act("act", **inputs)
        assert actions.shape == (window[1] + 1, 2)
        frames = np.arange(frame, frame + window[1] + 1)
        np.testing.assert_allclose(actions[:, 0], demonstrated(frames)[:, 0], atol=0.3)
    several = oracle.act("act", {key: [value, value] for key, value in inputs.items()})
    np.testing.assert_allclose(several, [actions, actions], atol=1e-4)
