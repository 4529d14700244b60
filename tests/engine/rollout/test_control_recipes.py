"""The robot's recipes: what their policies may look at, and a step of the state's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("metaworld")

from sensorium.engine.recipe import Env, Recipe, load_recipe, plan_recipe
from sensorium.engine.rollout.policy import Policy
from sensorium.engine.rollout.simulator import Simulator
from sensorium.modalities.action.metaworld import env

SHIPPED = Path(__file__).parents[3] / "configs" / "control"
HAND = [*range(4), *range(18, 22)]


class Planted:
    """Meta-World that tells of another object and another goal than there are."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.unwrapped = inner, inner.unwrapped

    def reset(self) -> tuple[np.ndarray, Any]:
        state, info = self.inner.reset()
        return self._other(state), info

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        state, *rest = self.inner.step(action)
        return (self._other(state), *rest)

    @staticmethod
    def _other(state: np.ndarray) -> np.ndarray:
        result = np.random.default_rng(1).normal(size=state.shape)
        result[HAND] = state[HAND]
        return result


def inputs(recipe: Recipe, section: Env) -> list[dict[str, Any]]:
    """What the model is given in the first steps of an episode."""
    streams = plan_recipe(recipe).tasks["act"].task.streams
    rows: list[dict[str, Any]] = []

    def ask(observed: list[dict[str, Any]]) -> list[np.ndarray]:
        rows.extend({name: row[name] for name in streams} for row in observed)
        return [np.full((20, 4), 0.5, np.float32) for _ in observed]

    policy = Policy(
        ask, {name: section.observation_keys.get(name, name) for name in streams}, n_action_steps=1
    )
    simulator = Simulator(section.names[0], section)
    seen = simulator.reset(3)
    for _ in range(3):
        seen, _, _ = simulator.step(policy.step(seen))
    return rows


@pytest.mark.slow
def test_a_policy_of_pixels_is_told_neither_object_nor_goal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = load_recipe(SHIPPED / "metaworld_pixels.yaml")
    assert recipe.env is not None
    section = recipe.env.model_copy(update={"size": 32})
    try:
        plain = inputs(recipe, section)
    except RuntimeError as error:
        pytest.skip(str(error))
    real = env._make
    monkeypatch.setattr(env, "_make", lambda task, seed: Planted(real(task, seed)))
    planted = inputs(recipe, section)
    assert len(plain) == len(planted) == 3
    assert set(plain[0]) == {"proprio", "corner", "topview"}
    for one, other in zip(plain, planted, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    assert not np.array_equal(plain[0]["corner"], plain[2]["corner"]), "it does look"


def test_a_policy_of_states_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same plant is seen where the state is: the test above can fail."""
    recipe = load_recipe(SHIPPED / "metaworld_state.yaml")
    assert recipe.env is not None
    plain = inputs(recipe, recipe.env)
    real = env._make
    monkeypatch.setattr(env, "_make", lambda task, seed: Planted(real(task, seed)))
    planted = inputs(recipe, recipe.env)
    assert not np.array_equal(plain[0]["state"], planted[0]["state"])


@pytest.mark.parametrize("name", ["metaworld_state", "metaworld_pixels"])
def test_environments_are_those_of_the_demonstrations(name: str) -> None:
    recipe = load_recipe(SHIPPED / f"{name}.yaml")
    assert recipe.env is not None
    data = recipe.tasks["act"].data["train"]
    assert recipe.env.names == [f"metaworld/{task}" for task in data.options["tasks"]]
    assert data.options.get("cameras", []) == recipe.env.cameras
    assert data.options.get("size", 128) == recipe.env.size
