"""Some tasks of a recipe alone, as the demo and its benchmark take them."""

from __future__ import annotations

import pytest

from sensorium.engine.recipe import Recipe, load_recipe, plan_recipe
from sensorium.scripts.benchmarks.senses import alone
from sensorium.scripts.examples import keep_tasks
from sensorium.scripts.examples.demo import RECIPE, small


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(RECIPE)


STREAMS = {
    "describe": {"image"},
    "report": {"volume"},
    "transcribe": {"audio"},
    "spell": {"voice"},
    "act": {"state"},
    "find_pictures": {"picture", "text"},
    "find_scans": {"scan", "text"},
    "find_speech": {"sound", "text"},
}


@pytest.mark.parametrize("task", STREAMS)
def test_each_task_stands_alone(recipe: Recipe, task: str) -> None:
    """Its streams bring the encoders that they shared; its steps are those of the joint run."""
    single = alone(recipe, task)
    assert set(plan_recipe(single).tasks) == {task}
    assert set(single.inputs) == STREAMS[task]
    assert (single.backbone is None) == (task == "spell")
    assert (single.env is None) == (task != "act")
    assert 0 < single.stages[0].overrides["train"]["steps"] < 300


def test_what_is_missing_leaves_the_others(recipe: Recipe) -> None:
    """Without espeak-ng: the audio encoder and all streams of it are gone."""
    rest = keep_tasks(
        recipe, [n for n in STREAMS if n not in ("transcribe", "spell", "find_speech")]
    )
    assert not {"audio", "voice", "sound"} & set(rest.inputs)
    assert set(rest.train.task_weights) == set(rest.tasks)
    plan_recipe(small(rest))


def test_all_tasks_are_the_recipe_itself(recipe: Recipe) -> None:
    assert set(recipe.tasks) == set(STREAMS)
    assert keep_tasks(recipe, list(STREAMS)) is recipe
