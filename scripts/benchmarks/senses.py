"""python -m sensorium.scripts.benchmarks.senses [--joint runs/senses]

Does one decoder for all senses cost a task anything? Each task of `configs/senses.yaml` is trained
alone, with as many of its own steps as the joint run gives it in each stage, the same batches, seed
and rates, and is scored on the same rows. Prints one table, whichever way it falls.

The joint run is trained first where its folder is not there; a task whose folder is there is not
trained again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sensorium.engine.recipe import Recipe

RECIPE = "configs/senses.yaml"


def main(
    joint: Annotated[Path, typer.Option(help="the run of the whole recipe")] = Path("runs/senses"),
    out: Annotated[Path, typer.Option(help="where each task's run goes")] = Path(
        "runs/benchmarks/senses"
    ),
    task: Annotated[list[str] | None, typer.Option(help="only this task")] = None,
) -> None:
    """Train each task alone, score it and the joint run, print the table."""
    from sensorium.engine.recipe import load_recipe
    from sensorium.scripts.benchmarks.timing import machine

    recipe = load_recipe(RECIPE)
    together = scores(recipe, joint)
    rows = []
    for name in task or recipe.tasks:
        single = alone(recipe, name)
        metric, value, margin = scores(single, out / name)[name]
        _, other, other_margin = together[name]
        steps = sum(stage["train"]["steps"] for stage in single.to_dict()["stages"])
        cells = (f"{value:.3f} ± {margin:.3f}", f"{other:.3f} ± {other_margin:.3f}")
        rows.append(f"| {name} | {steps} | {metric} | {cells[0]} | {cells[1]} |")
        print(rows[-1], flush=True)
    print("\n| task | its steps | metric | alone | joint |\n|---|---|---|---|---|")
    print("\n".join(rows))
    print(f"\nSeed {recipe.train.seed}; {machine()}")


def alone(recipe: Recipe, task: str) -> Recipe:
    """Return the recipe of one task, with the steps that it has in the joint run, rounded."""
    from sensorium.engine.recipe import parse_recipe, stage_recipes
    from sensorium.scripts.examples import keep_tasks

    values = keep_tasks(recipe, [task]).to_dict()
    for stage, section in zip(stage_recipes(recipe), values["stages"], strict=True):
        weights = {name: stage.recipe.train.task_weight(name, 0) for name in recipe.tasks}
        share = weights[task] / sum(weights.values())
        steps = max(1, round(share * stage.recipe.train.steps))
        section["train"] = {**section.get("train", {}), "steps": steps}
    return parse_recipe(values)


def scores(recipe: Recipe, folder: Path) -> Mapping[str, tuple[str, float, float]]:
    """Return `{task: (metric, value, margin of error)}` of a run, which is trained if it is not
    there, and evaluated if it was not."""
    from sensorium.engine.checkpoint import load_model
    from sensorium.engine.evaluation import EVALUATION, evaluate, main_metric, read_table
    from sensorium.engine.model import read_json
    from sensorium.engine.training import train

    model = load_model(folder) if (folder / "recipe.yaml").exists() else train(recipe, folder)
    if not (folder / EVALUATION).exists():
        evaluate(model, intervals=True, input_ablation=False, folder=folder)
    results: dict[str, tuple[str, float, float]] = {}
    for label, values in read_json(folder / EVALUATION).items():
        first = main_metric(model.plan, label)
        table = read_table(label, values, list(model.plan.streams), first, None)
        value = next(value for name, value, _ in table.rows if name == table.headline)
        margin = table.margins.get(table.headline)
        results[label] = (table.headline, value or 0.0, margin or 0.0)
    return results


if __name__ == "__main__":
    typer.run(main)
