"""sensorium train RECIPE [KEY=VALUE ...]

With several processes: torchrun --nproc_per_node 2 -m sensorium train RECIPE
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer


def main(
    recipe: Annotated[str, typer.Argument(help="a recipe's file")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    out: Annotated[Path | None, typer.Option(help="the run's folder; runs/<recipe>")] = None,
    resume: Annotated[bool, typer.Option(help="go on from the newest checkpoint")] = False,
    overwrite: Annotated[bool, typer.Option(help="begin anew in the same folder")] = False,
    quiet: Annotated[bool, typer.Option(help="no bar, no lines")] = False,
) -> None:
    """Train a recipe into runs/<recipe>, from the start or from its newest checkpoint."""
    from sensorium.engine.config import load_recipe
    from sensorium.engine.train import train

    found = load_recipe(recipe, overrides or ())
    folder = out or Path("runs") / Path(recipe).stem
    if overwrite and not resume:
        shutil.rmtree(folder, ignore_errors=True)
    command = " ".join(["sensorium", *sys.argv[1:]])
    train(found, folder, resume=resume, show=not quiet, command=command)
    if not quiet:
        print(folder)


if __name__ == "__main__":
    typer.run(main)
