"""make demo: one small decoder for pictures, volumes, speech and a robot; ends in one page.

python -m sensorium.scripts.examples.demo [--quick] [--out runs/demo]

Trains `configs/senses.yaml`, scores every task beside the same task with shuffled inputs, lets the
policy act, and writes report.html. `--quick` (`DEMO=quick make demo`) shows the same way with a
small part of the steps and rows; its model has learned little.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sensorium.engine.inference import Pipeline
    from sensorium.engine.recipe import Recipe, ResolvedRecipe

RECIPE = "configs/senses.yaml"
COMMAND = "python -m sensorium.scripts.examples.demo"

EPISODES, SAMPLES = 20, 8
"""Episodes of each environment; rows of each task on the page."""

QUICK_STEPS, QUICK_DATA, QUICK_ROWS, QUICK_EPISODES = 0.08, 0.1, 40, 4
"""With --quick: fractions of the steps and of the training data, rows scored, episodes."""


def main(
    out: Annotated[Path, typer.Option(help="where the run and the page go")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="a small part of it")] = False,
) -> None:
    """Train, evaluate, act, write report.html."""
    import shutil

    from sensorium.engine.evaluation import evaluate
    from sensorium.engine.inference import Pipeline
    from sensorium.engine.report import write_report
    from sensorium.engine.training import train
    from sensorium.engine.utils import RunLogger

    began, cpu = time.perf_counter(), time.process_time()
    recipe = demo_recipe(quick)
    shutil.rmtree(out, ignore_errors=True)
    model = train(recipe, out, command=f"{COMMAND} --quick" if quick else COMMAND)
    metrics = evaluate(model, intervals=True, log=RunLogger(None), folder=out)
    if recipe.env is not None:
        act(Pipeline(model), out, QUICK_EPISODES if quick else EPISODES)
    page = write_report([out], out / "report.html", samples=SAMPLES)
    print(summary(model.plan, metrics))
    if quick:
        print("a small part of the training, to show the way: the scores of make demo say more")
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"\n{page}\n{seconds:.0f} s by the clock, {cpu:.0f} s of CPU time")


def demo_recipe(quick: bool) -> Recipe:
    """Return the recipe with the tasks whose data can be made here; the others are named."""
    from sensorium.engine.recipe import load_recipe
    from sensorium.scripts.examples.some_tasks import keep_tasks, missing

    recipe = load_recipe(RECIPE)
    left_out = missing(recipe)
    for why in dict.fromkeys(left_out.values()):
        names = ", ".join(name for name, reason in left_out.items() if reason == why)
        sys.stderr.write(f"left out: {names}: {why.partition(': ')[2]}\n")
    recipe = keep_tasks(recipe, [name for name in recipe.tasks if name not in left_out])
    return small(recipe) if quick else recipe


def small(recipe: Recipe) -> Recipe:
    """Return the recipe with a small part of its steps and rows."""
    from sensorium.engine.recipe import parse_recipe

    values = recipe.to_dict()
    for settings in (values["train"], *(stage.get("train", {}) for stage in values["stages"])):
        if "steps" in settings:
            settings["steps"] = round(settings["steps"] * QUICK_STEPS)
    for task in values["tasks"].values():
        for split, data in task["data"].items():
            for size in {"count", "subjects", "episodes"} & data.keys():
                least = 1 if split == "test" else 4
                data[size] = (
                    max(least, round(data[size] * QUICK_DATA)) if split == "train" else data[size]
                )
            if split != "train":
                data["limit"] = QUICK_ROWS
    return parse_recipe(values)


def act(pipeline: Pipeline, folder: Path, episodes: int) -> None:
    """Let the policy act, also with the state of another episode, and film the first episodes."""
    from sensorium.engine.inference import find_control_task
    from sensorium.engine.rollout import Ablation, RolloutOptions, env_config, rollout
    from sensorium.engine.utils import ConfigError, RunLogger, RuntimeFailure

    section, seeds = env_config(pipeline), range(2000, 2000 + episodes)
    _, task = find_control_task(pipeline.model.plan, section.task, "env.task")
    shuffled = Ablation(shuffle_streams=tuple(task.inputs()))
    log = RunLogger(None)
    rollout(
        pipeline,
        section,
        seeds=seeds,
        options=RolloutOptions(ablation=shuffled),
        folder=folder,
        log=log,
    )
    try:
        filmed = RolloutOptions(num_videos=1)
        rollout(pipeline, section, seeds=seeds, options=filmed, folder=folder, log=log)
    except (ConfigError, RuntimeFailure) as error:  # no OpenGL here
        sys.stderr.write(f"left out: the film: {error}\n")
        rollout(pipeline, section, seeds=seeds, options=RolloutOptions(), folder=folder, log=log)


def summary(plan: ResolvedRecipe, metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Return a line a task: its first metric with its interval, the same with shuffled inputs, and
    whether the interval lies apart from it."""
    from sensorium.engine.evaluation import main_metric, read_table
    from sensorium.engine.utils import format_table

    lines = [("task", "metric", "score", "shuffled", "")]
    for label, values in metrics.items():
        table = read_table(label, values, list(plan.streams), main_metric(plan, label), None)
        name, value, shuffled = next(row for row in table.rows if row[0] == table.headline)
        margin = table.margins.get(name) or 0.0
        others = [other for other in shuffled if other is not None]
        apart = value is not None and all(abs(value - other) > margin for other in others)
        scores = "; ".join(f"{other:.3f}" for other in others)
        lines.append(
            (label, name, f"{value:.3f} ± {margin:.3f}", scores, "apart" if apart else "not apart")
        )
    return format_table(lines)


if __name__ == "__main__":
    from sensorium.engine.utils import console

    with console():
        typer.run(main)
