"""sensorium train RECIPE [KEY=VALUE ...]

With several processes: torchrun --nproc_per_node 2 -m sensorium train RECIPE
As a job of SLURM: sensorium submit RECIPE [KEY=VALUE ...] --nodes 2 --processes 8
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sensorium.scripts.info import JsonOption, OverridesArgument, RecipeArgument, print_result

DeviceOption = Annotated[
    str | None, typer.Option(help="cuda, cuda:1, xpu, mps or cpu; by default the first available")
]
PrecisionOption = Annotated[
    str | None, typer.Option(help="fp32, bf16 or fp16; by default the run's or the recipe's")
]
"""Options of every command that runs a model."""


def main(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    out: Annotated[str | None, typer.Option(help="the run's folder, or s3://...")] = None,
    resume: Annotated[bool, typer.Option(help="continue from the newest checkpoint")] = False,
    overwrite: Annotated[bool, typer.Option(help="remove the folder first")] = False,
    allow_change: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="with --resume: a key that may differ, train.steps"),
    ] = None,
    quiet: Annotated[bool, typer.Option(help="no progress bar and no log lines")] = False,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    json_: JsonOption = False,
) -> None:
    """Train a recipe, from the start or from its newest checkpoint.

    configs/captioning/shapes.yaml is trained into runs/captioning/shapes, mine.yaml into
    runs/mine.
    """
    from sensorium.engine.recipe import load_recipe
    from sensorium.engine.training import train
    from sensorium.engine.utils import check_folder, check_precision, pick
    from sensorium.modalities.paths import address_of

    pick(device)
    changes = list(overrides or ())
    if precision is not None:
        check_precision(precision)
        changes.append(f"train.precision={precision}")
    parsed = load_recipe(recipe, changes)
    folder = out or run_folder(Path(recipe))
    if not address_of(folder):
        check_folder(Path(folder), "--out")
    train(
        parsed,
        folder,
        resume=resume,
        overwrite=overwrite,
        allow_changes=allow_change or (),
        show=not quiet,
        command=" ".join(["sensorium", *sys.argv[1:]]),
        device=device,
    )
    if json_ or not quiet:
        print_result({"run": folder}, folder, json_)


def submit(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    out: Annotated[Path | None, typer.Option(help="the run's folder")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="nodes of the job")] = 1,
    processes: Annotated[int, typer.Option(min=1, help="processes on each node")] = 1,
    minutes: Annotated[int, typer.Option(min=1, help="the most that the job takes at a time")] = 60,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="of submitit, slurm_partition=gpu"),
    ] = None,
    logs: Annotated[Path | None, typer.Option(help="folder of the job; by default RUN.job")] = None,
    cluster: Annotated[str, typer.Option(help="slurm, local or debug")] = "slurm",
    json_: JsonOption = False,
) -> None:
    """Train a recipe in a job of SLURM. Before its time ends, or when it is preempted, the job
    writes a checkpoint; it is queued again and goes on from there."""
    from sensorium.engine.recipe import load_recipe
    from sensorium.engine.training.parallel import TrainJob, job_options, submit_job

    load_recipe(recipe, list(overrides or ()))  # its mistakes are found here, not in the queue
    run = out or run_folder(Path(recipe))
    arguments = [str(recipe), *(overrides or ()), "--out", str(run)]
    job = TrainJob(arguments, run, nodes, processes)
    folder = logs or run.with_name(f"{run.name}.job")
    options = job_options(option or ())
    number, file = submit_job(job, folder, cluster=cluster, minutes=minutes, options=options)
    value = {"job": number, "command": job.command(), "folder": folder, "run": run}
    print_result(value, f"job {number}: {file}, run {run}", json_)


def run_folder(recipe: Path) -> Path:
    """Return the run folder of a recipe: its path below `configs`, or its name, below `runs`."""
    parts = recipe.with_suffix("").parts
    below = parts[parts.index("configs") + 1 :] if "configs" in parts else parts[-1:]
    return Path("runs").joinpath(*below)


if __name__ == "__main__":
    typer.run(main)
