"""sensorium check RECIPE [KEY=VALUE ...] [--data] [--memory] [--out FOLDER]"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.scripts.info import JsonOption, OverridesArgument, RecipeArgument, print_result


def main(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    data: Annotated[
        bool, typer.Option("--data", help="open every file, and name the rows that fail")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="try the folder that `train --out` would write into, first")
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="what a device needs under each plan, in a table")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Walk a recipe without weights: every stage's shape, trained parameters, the cost of a step.
    With --data, read every row of every split instead; with --memory, compare the memory of a
    device with and without shards and activation checkpointing."""
    from sensorium.engine.checkpoint import check_free
    from sensorium.engine.recipe import load_recipe
    from sensorium.engine.training import check, check_data
    from sensorium.engine.training.parallel import memory_plans, memory_table
    from sensorium.engine.utils import try_folder

    if out is not None:
        try_folder(out, "--out")
        check_free(out)
    if data:
        for line in check_data(load_recipe(recipe, overrides or ())):
            print_result({"data": line}, line, json_)
        return
    if memory:
        plans = memory_plans(load_recipe(recipe, overrides or ()))
        print_result(plans, memory_table(plans), json_)
        return
    report = check(load_recipe(recipe, overrides or ()))
    print_result(report, report, json_)


if __name__ == "__main__":
    typer.run(main)
