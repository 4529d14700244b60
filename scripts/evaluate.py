"""sensorium evaluate runs/x [--split test]"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.scripts.info import JsonOption, RunArgument, print_result
from sensorium.scripts.train import DeviceOption, PrecisionOption


def main(
    run: RunArgument,
    task: Annotated[list[str] | None, typer.Option(help="only this task")] = None,
    split: Annotated[str | None, typer.Option(help="this split; else all but train")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="rows of a forward; by default as in training")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="the first rows only")] = None,
    input_ablation: Annotated[
        bool, typer.Option(help="also score with shuffled inputs, row by row, and baselines")
    ] = True,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="with the 95 % margin of error of each metric")
    ] = False,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    json_: JsonOption = False,
) -> None:
    """Score a run; writes evaluation.json and the predictions into its folder."""
    from sensorium.engine.checkpoint import load_model
    from sensorium.engine.evaluation import evaluate, format_evaluation, input_streams, metric_names
    from sensorium.engine.utils import RunLogger, pick

    pick(device)  # before the weights are read
    folder = Path(run) if Path(run).is_dir() else None
    model = load_model(run, precision)
    metrics = evaluate(
        model,
        tasks=task,
        split=split,
        batch_size=batch_size,
        limit=limit,
        input_ablation=input_ablation,
        intervals=intervals,
        log=RunLogger(None),
        folder=folder,
        device=device,
    )
    plan = model.plan
    table = format_evaluation(metrics, input_streams(plan), metric_names(plan))
    print_result(metrics, table, json_)


if __name__ == "__main__":
    typer.run(main)
