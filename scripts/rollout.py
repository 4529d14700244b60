"""sensorium rollout runs/x [--env metaworld/push-v3] [--n-episodes 50] [--seed 2000]"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sensorium.scripts.info import JsonOption, RunArgument, print_result
from sensorium.scripts.train import DeviceOption, PrecisionOption


class VideoFormat(StrEnum):
    """File formats of videos."""

    gif = "gif"
    mp4 = "mp4"


def main(
    run: RunArgument,
    env: Annotated[
        list[str] | None,
        typer.Option(help="one, or several separated by commas; by default the recipe's"),
    ] = None,
    n_episodes: Annotated[int, typer.Option(min=1, help="episodes of each environment")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="seed of the first episode")] = 2000,
    num_envs: Annotated[int, typer.Option(min=1, help="environments in parallel")] = 25,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="steps of an episode; by default the recipe's")
    ] = None,
    n_action_steps: Annotated[
        int | None, typer.Option(min=1, help="executed steps of each chunk")
    ] = None,
    temporal_ensemble_coeff: Annotated[
        float | None, typer.Option(min=0, help="average overlapping chunks, as ACT")
    ] = None,
    shuffle_stream: Annotated[
        list[str] | None, typer.Option(help="take this stream from another environment")
    ] = None,
    zero_stream: Annotated[
        list[str] | None, typer.Option(help="replace this stream by zeros")
    ] = None,
    instruction: Annotated[str | None, typer.Option(help="for every environment")] = None,
    swap_instructions: Annotated[
        bool,
        typer.Option("--swap-instructions", help="use the instruction of the next environment"),
    ] = False,
    open_loop_baseline: Annotated[
        bool,
        typer.Option(
            "--open-loop-baseline", help="replay the mean demonstration in place of the model"
        ),
    ] = False,
    num_videos: Annotated[int, typer.Option(min=0, help="record the first episodes")] = 0,
    video_format: Annotated[VideoFormat, typer.Option(help="of the videos")] = VideoFormat.gif,
    out: Annotated[Path | None, typer.Option(help="output folder; by default the run's")] = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    json_: JsonOption = False,
) -> None:
    """Run a policy in its environments; writes rollout-*.json and videos into its folder."""
    from sensorium.engine.inference import load
    from sensorium.engine.rollout import (
        Ablation,
        RolloutOptions,
        env_config,
        format_summaries,
        rollout,
    )
    from sensorium.engine.utils import RunLogger, check_precision

    check_precision(precision)
    pipeline = load(run, device=device, dtype=precision)
    names = [name for text in env or () for name in text.split(",") if name]
    ablation = Ablation(
        shuffle_streams=tuple(shuffle_stream or ()),
        zero_streams=tuple(zero_stream or ()),
        instruction=instruction,
        swap_instructions=swap_instructions,
        open_loop=open_loop_baseline,
    )
    summaries = rollout(
        pipeline,
        env_config(
            pipeline,
            names,
            max_steps=max_steps,
            n_action_steps=n_action_steps,
            temporal_ensemble_coeff=temporal_ensemble_coeff,
        ),
        names=names,
        seeds=range(seed, seed + n_episodes),
        options=RolloutOptions(num_envs, ablation, num_videos, f".{video_format}"),
        folder=out or (Path(run) if Path(run).is_dir() else None),
        log=RunLogger(None),
    )
    print_result(summaries, format_summaries(summaries), json_)


if __name__ == "__main__":
    typer.run(main)
