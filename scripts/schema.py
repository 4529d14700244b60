"""sensorium schema [RECIPE] > recipe.schema.json"""

from __future__ import annotations

from typing import Annotated

import typer


def schema(
    recipe: Annotated[str | None, typer.Argument(help="a recipe, for its own parts")] = None,
) -> None:
    """JSON schema of a recipe, for completion in an editor; with every part's options."""
    import json

    from sensorium.engine.recipe import load_recipe, schema

    print(json.dumps(schema(load_recipe(recipe) if recipe else None), indent=1))


if __name__ == "__main__":
    typer.run(schema)
