"""sensorium report runs/x | look recipe.yaml"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.scripts.info import (
    JsonOption,
    OverridesArgument,
    RecipeArgument,
    complete_runs,
    print_result,
)


def main(
    runs: Annotated[
        list[Path],
        typer.Argument(help="one run's folder, or several", autocompletion=complete_runs),
    ],
    out: Annotated[Path | None, typer.Option(help="the page; report.html of the first")] = None,
    json_: JsonOption = False,
) -> None:
    """Write one self-contained HTML page: curves, metrics and samples."""
    from sensorium.engine.report import write_report
    from sensorium.engine.utils import check_writable

    if out is not None:
        check_writable(out, "--out", make=True)
    page = write_report(runs, out or runs[0] / "report.html")
    print_result({"page": page}, page, json_)


def look(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    split: Annotated[str | None, typer.Option(help="this split alone")] = None,
    limit: Annotated[int, typer.Option(min=1, help="rows of each split")] = 12,
    out: Annotated[Path, typer.Option(help="the page")] = Path("look.html"),
    json_: JsonOption = False,
) -> None:
    """Write one HTML page with the first rows of a recipe's data, each stream as it will be read;
    a row that cannot be read shows the reason. Nothing is trained."""
    from sensorium.engine.recipe import load_recipe
    from sensorium.engine.report import write_look
    from sensorium.engine.utils import check_writable

    check_writable(out, "--out", make=True)
    page = write_look(load_recipe(recipe, overrides or ()), out, rows=limit, split=split)
    print_result({"page": page}, page, json_)


if __name__ == "__main__":
    typer.run(main)
