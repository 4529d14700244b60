"""sensorium rollout runs/x [--env metaworld/push-v3] [--episodes 50] [--seed 2000]"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sensorium.scripts.train import DeviceOption, PrecisionOption


class Film(StrEnum):
    """How a film is written."""

    gif = "gif"
    mp4 = "mp4"


def main(
    run: Annotated[str, typer.Argument(help="a run's folder, or hf-hub:org/name")],
    env: Annotated[
        list[str] | None, typer.Option(help="one, or several with commas; else the recipe's")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1)] = 50,
    seed: Annotated[int, typer.Option(min=0, help="of the first episode")] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="episodes side by side")] = 25,
    max_steps: Annotated[int | None, typer.Option(min=1)] = None,
    execute: Annotated[int | None, typer.Option(min=1, help="steps of each chunk")] = None,
    ensemble: Annotated[float | None, typer.Option(min=0, help="ACT's weighting of chunks")] = None,
    shuffle: Annotated[
        list[str] | None, typer.Option(help="a stream dealt from another environment")
    ] = None,
    blank: Annotated[list[str] | None, typer.Option(help="a stream of zeros")] = None,
    instruction: Annotated[str | None, typer.Option(help="told to every environment")] = None,
    swap: Annotated[bool, typer.Option("--swap", help="tell each what the next should do")] = False,
    replay_mean: Annotated[
        bool, typer.Option("--replay-mean", help="the mean demonstration, blind, for the model")
    ] = False,
    films: Annotated[int, typer.Option(min=0, help="of the first episodes")] = 0,
    film: Annotated[Film, typer.Option(help="their form")] = Film.gif,
    out: Annotated[Path | None, typer.Option(help="where to write; else the run's folder")] = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
) -> None:
    """Let a run act in its environments; writes rollout-*.json and films into its folder."""
    from sensorium.engine.inference import load
    from sensorium.engine.rollout import (
        Ablation,
        RolloutOptions,
        env_config,
        format_summaries,
        rollout,
    )
    from sensorium.engine.utils import RunLogger

    pipeline = load(run, device=device, precision=precision)
    names = [name for text in env or () for name in text.split(",") if name]
    conditions = Ablation(tuple(shuffle or ()), tuple(blank or ()), instruction, swap, replay_mean)
    found = rollout(
        pipeline,
        env_config(
            pipeline,
            names,
            max_steps=max_steps,
            n_action_steps=execute,
            temporal_ensemble_coeff=ensemble,
        ),
        names=names,
        seeds=range(seed, seed + episodes),
        how=RolloutOptions(batch, conditions, films, f".{film}"),
        folder=out or (Path(run) if Path(run).is_dir() else None),
        log=RunLogger(None),
    )
    print(format_summaries(found))


if __name__ == "__main__":
    typer.run(main)
