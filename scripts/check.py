"""sensorium check RECIPE [KEY=VALUE ...] [--data] [--out FOLDER]"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.scripts.info import JsonOption, RecipeArgument, print_result


def main(
    recipe: RecipeArgument,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    data: Annotated[
        bool, typer.Option("--data", help="open every file, and name the rows that fail")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="try the folder that `train --out` would write into, first")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Walk a recipe without weights: every stage's shape, trained parameters, the cost of a step.
    With --data, read every row of every split instead."""
    from sensorium.engine.checkpoint import check_free
    from sensorium.engine.recipe import load_recipe
    from sensorium.engine.training import check, check_data
    from sensorium.engine.utils import try_folder

    if out is not None:
        try_folder(out, "--out")
        check_free(out)
    if data:
        for line in check_data(load_recipe(recipe, overrides or ())):
            print_result({"data": line}, line, json_)
        return
    report = check(load_recipe(recipe, overrides or ()))
    print_result(report, report, json_)


if __name__ == "__main__":
    typer.run(main)
