"""Chunks and windows that cannot be executed: they are refused or counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sensorium.engine.data import load_split
from sensorium.engine.model import resolve_and_fit
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.rollout import rollout
from sensorium.engine.training import check
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.rollout.ramps import FRAMES, TASKS, Oracle, recipe


def test_chunks_that_mean_nothing_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean action is executed in their place, which nobody would see."""
    plan = resolve_and_fit(parse_recipe(recipe(TASKS["fast"], (0, 9))))
    oracle = Oracle(plan, monkeypatch)
    monkeypatch.setattr(oracle, "tokens", lambda: [torch.zeros(1, dtype=torch.long)] * 2)
    figures = rollout(oracle, plan.recipe.env, seeds=range(2))["FrameCounter-v0"]
    assert figures["undecodable_chunks"] == 2 * figures["model_calls"] > 0


@pytest.mark.parametrize(
    ("window", "start_order", "line"),
    [
        ((0, 9), 1, r"delta_frames\.action: found \[0, 9\], expected \[-1, 9\]: .*start_order: 1"),
        ((-3, 6), 1, r"delta_frames\.action: found \[-3, 6\], expected \[-1, 6\]"),
        ((1, 9), 0, r"delta_frames\.action: found \[1, 9\], in which the frame 0 is missing"),
        ((-9, -1), 0, r"delta_frames\.action: found \[-9, -1\], in which the frame 0 .*\[-9, 0\]"),
    ],
)
def test_a_chunk_that_cannot_be_executed_from_now_is_refused(
    window: tuple[int, int], start_order: int, line: str
) -> None:
    recipes = parse_recipe(recipe(TASKS["parallel"], window, start_order))
    with pytest.raises(ConfigError, match=rf"tasks\.act\.data\.train\.{line}") as error:
        check(recipes)
    assert "\n" not in str(error.value)


PREVIOUS = [  # column that stands for the action executed last, its window, whether it is right
    ("previous_action", None, True),
    ("previous_action", [0, 0], True),
    ("action_before", [-1, -1], True),
    ("action_before", [-4, -1], True),
    ("action_before", None, False),
    ("action_before", [0, 0], False),
    ("action_before", [-1, 1], False),
]


@pytest.mark.parametrize(("column", "window", "right"), PREVIOUS)
def test_the_action_executed_last_may_have_a_window_of_its_own(
    column: str, window: list[int] | None, right: bool
) -> None:
    """Its last frame is what a chunk begins at; the action that is to be predicted is refused."""
    content = recipe(TASKS["parallel"], (-1, 8), 1)
    data = content["tasks"]["act"]["data"]["train"]
    if column != "previous_action":  # the column of actions under another name
        data["columns"] = {**data.get("columns", {}), "previous_action": "action"}
    if window is not None:
        data["delta_frames"]["previous_action"] = window
    if not right:
        with pytest.raises((ConfigError, ValueError), match=r"previous_action.*\[-\d, -1\]"):
            plan = resolve_and_fit(parse_recipe(content))
            rows = load_split(plan, "act", "train")
            plan.tasks["act"].task.prepare(rows[5], plan.tools, None)
        return
    plan = resolve_and_fit(parse_recipe(content))
    rows, task = load_split(plan, "act", "train"), plan.tasks["act"].task
    for index in (0, 1, 7, FRAMES):
        labels = task.prepare(rows[index], plan.tools, None).labels
        np.testing.assert_allclose(labels["start"], labels["actions"][0], atol=1e-5)


def test_splits_with_other_windows_are_refused() -> None:
    """Their chunks have one shape and begin at other frames."""
    content = recipe(TASKS["parallel"], (0, 9))
    data = content["tasks"]["act"]["data"]
    data["test"] = {
        **data["train"],
        "delta_frames": {**data["train"]["delta_frames"], "action": [-1, 8]},
    }
    with pytest.raises(
        ConfigError, match=r"data\.test\.delta_frames\.action: found \[-1, 8\], the trai"
    ):
        check(parse_recipe(content))


def test_check_reads_what_env_says_of_chunks() -> None:
    content = recipe(TASKS["parallel"], (-3, 6))
    content["env"]["n_action_steps"] = 8
    with pytest.raises(ConfigError, match=r"env\.n_action_steps: found 8, and a chunk has 7 steps"):
        check(parse_recipe(content))
    content["env"]["n_action_steps"] = 7
    check(parse_recipe(content))
