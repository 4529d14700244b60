"""sensorium sweep recipe.yaml inputs.image.encoder.name=a,b train.seed=0,1 --out runs/sweep"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sensorium.scripts.info import JsonOption, RecipeArgument, print_result
from sensorium.scripts.insight.analyze import table
from sensorium.scripts.train import DeviceOption, run_folder

SWEEP = "sweep.json"
"""The file of a sweep's folder with the table."""


def sweep(
    recipe: RecipeArgument,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=A,B]...", help="values of a key, one run for each combination"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="the folder of the runs")] = None,
    split: Annotated[str | None, typer.Option(help="this split; else all but train")] = None,
    overwrite: Annotated[bool, typer.Option(help="train unfinished cells from the start")] = False,
    quiet: Annotated[bool, typer.Option(help="no progress bar and no log lines")] = False,
    device: DeviceOption = None,
    json_: JsonOption = False,
) -> None:
    """Train and evaluate one recipe with each value of some keys, and table the results.

    A run that is finished is not trained again, one that was interrupted is resumed; `sweep.json`
    in the folder holds the table.
    """
    from sensorium.engine.evaluation import grid_cells
    from sensorium.engine.recipe import load_recipe
    from sensorium.engine.utils import ConfigError, check_folder, pick, write_json

    pick(device)
    folder = out or run_folder(Path(recipe)).with_name(f"{Path(recipe).stem}-sweep")
    check_folder(folder, "--out")
    for text in overrides or ():
        if "=" not in text:
            raise ConfigError(f"{text}: found no '=', expected KEY=VALUE,VALUE")
    cells = list(grid_cells(overrides or ()))
    varied = [key for key in cells[0] if len({cell[key] for cell in cells}) > 1]
    recipes = [load_recipe(recipe, [f"{k}={v}" for k, v in cell.items()]) for cell in cells]
    before = finished_rows(folder)
    rows: list[dict[str, Any]] = []
    for cell, parsed in zip(cells, recipes, strict=True):
        run = folder / cell_name({key: cell[key] for key in varied})
        identity = fingerprint(parsed, split)
        scores = before.get(identity)
        if scores is None:
            scores = train_and_evaluate(parsed, run, split, quiet, overwrite, device)
        rows.append(
            {
                "cell": {key: cell[key] for key in varied},
                "scores": scores,
                "run": str(run),
                "fingerprint": identity,
            }
        )
        write_json(folder / SWEEP, rows)
    shown = [row["cell"] | {k: v for k, v in row["scores"].items() if is_shown(k)} for row in rows]
    print_result(rows, table(shown), json_)


def is_shown(metric: str) -> bool:
    """Return whether a metric is in the table of the terminal; the ablations do not."""
    return not metric.endswith(("_shuffled", "batch_gap"))


def cell_name(cell: Mapping[str, str]) -> str:
    """Return the name of a cell's folder: its keys' last words and its values."""
    parts = (f"{key.rpartition('.')[2]}={value}" for key, value in cell.items())
    return re.sub(r"[^\w.=,+-]+", "_", ",".join(parts)) or "run"


def fingerprint(recipe: Any, split: str | None) -> str:
    """Return a digest of everything that decides a cell's scores."""
    from sensorium.engine.recipe import to_plain_dict

    text = json.dumps([to_plain_dict(recipe), split], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def finished_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the scores of the cells that an earlier sweep finished, by fingerprint."""
    file = folder / SWEEP
    rows = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return {row["fingerprint"]: row["scores"] for row in rows if Path(row["run"]).is_dir()}


def train_and_evaluate(
    recipe: Any, run: Path, split: str | None, quiet: bool, overwrite: bool, device: str | None
) -> dict[str, Any]:
    """Return the scores of a run that is trained from its newest checkpoint, or the start."""
    from sensorium.engine.evaluation import evaluate
    from sensorium.engine.training import train

    begun = (run / "recipe.yaml").is_file() and not overwrite
    model = train(recipe, run, resume=begun, overwrite=overwrite, show=not quiet, device=device)
    return _flat(evaluate(model, folder=run, split=split, device=device))


def _flat(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    return {
        f"{task}/{name}": value if value is not None and math.isfinite(value) else None
        for task, values in metrics.items()
        for name, value in values.items()
    }


if __name__ == "__main__":
    typer.run(sweep)
