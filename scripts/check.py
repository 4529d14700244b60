"""sensorium check RECIPE [KEY=VALUE ...]"""

from __future__ import annotations

from typing import Annotated

import typer


def main(
    recipe: Annotated[str, typer.Argument(help="a recipe's file, or a run's folder")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
) -> None:
    """Check a recipe without weights: shapes, trainable parameters, memory of a step."""
    from sensorium.engine.recipe import load_recipe
    from sensorium.engine.training import check

    print(check(load_recipe(recipe, overrides or ())))


if __name__ == "__main__":
    typer.run(main)
