"""Mistakes in the stages of a recipe, and how `check` shows them."""

from __future__ import annotations

from typing import Any

import pytest
from recipe_changes import train

from sensorium.engine.recipe import parse_recipe, stage_recipes
from sensorium.engine.training import check
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.training.stages.stage_recipes import encoder, stage, warm_up_and_all

KEPT = {"keep_optimizer": True}


WRONG: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no name": ([{"train": {"steps": 1}}], r"stages\.0\.name: is required"),
    "no folder's name": ([stage("a/b")], r"stages\.0\.name: found 'a/b', expected letters"),
    "keep": ([stage("a", keep_optimizer="x")], r"stages\.0\.keep_optimizer: found 'x' \(str\)"),
    "keep what": ([stage("a", **KEPT)], r"stages\.0\.keep_optimizer: there is no stage before"),
    "keep another": (
        [stage("a"), stage("b", train(optimizer="sgd"), **KEPT)],
        r"stages\.1\.keep_optimizer: the stage before has adamw, this one sgd",
    ),
    "a section": ([stage("a", trian={})], r"stages\.0\.trian: .*did you mean 'train'"),
    "stages": ([stage("a", stages=[])], r"stages\.0\.stages: a stage has no such option"),
    "a key": ([stage("a"), stage("b", train(step=1))], r"stages\.1\.train\.step: .*'steps'"),
    "a value": ([stage("a", train(steps="many"))], r"stages\.0\.train\.steps: found 'many'"),
    "an option": ([stage("a", encoder(dropuot=1))], r"stages\.0\.inputs.image.encoder.dropuot: "),
    "an old name": ([stage("a", train(lr=1))], r"stages\.0\.train\.lr: .*train\.optimizer\.lr now"),
    "what is left": (
        [stage("a", {"tasks": {"digit": None}})],
        r"stages\.0\.tasks: found none",
    ),
    "nothing trains": (
        [stage("a"), stage("b", encoder(freeze=True), {"tasks": {"digit": {"freeze": True}}})],
        r"stages\.1: train: nothing trains",
    ),
    "another width": (
        [stage("a"), stage("b", encoder(dim=6))],
        r"stages\.1\.inputs\.image\.encoder: the stage before has streams\.image\.encoder\.\S+ "
        r"\(.*this one builds \(.*keep the options",
    ),
    "adapters": (
        [stage("a", encoder(lora={"r": 2})), stage("b")],
        r"stages\.1: inputs\.image\.encoder: .*lora_A.*has no such tensor; keep the options and ad",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line_with_its_stage(runner: Any, name: str) -> None:
    stages, line = WRONG[name]
    with pytest.raises(ConfigError, match=f"^{line}") as refused:
        check(parse_recipe({**runner.recipe(), "stages": stages}))
    assert "\n" not in str(refused.value)


def test_check_shows_each_stage(runner: Any) -> None:
    report = check(parse_recipe(warm_up_and_all(runner)))
    text = str(report)
    assert text.index("stage 0-head") < text.index("stage 1-all")
    trained = [
        {c.where: c.trained for c in result.components}["inputs.image.encoder"]
        for result in report.stages.values()
    ]
    assert trained[0] == 0 < trained[1]


def test_a_recipe_with_stages_is_written_back(runner: Any) -> None:
    recipe = parse_recipe(warm_up_and_all(runner))
    again = parse_recipe(recipe.to_dict())
    assert again == recipe
    assert [s.recipe for s in stage_recipes(again)] == [s.recipe for s in stage_recipes(recipe)]
    assert [s.folder for s in stage_recipes(recipe)] == ["0-head", "1-all"]
