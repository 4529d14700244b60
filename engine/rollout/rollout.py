"""A policy in its environments, and the figures that are written into the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..inference import Pipeline, find_control_task
from ..recipe import Env
from ..utils import ConfigError, RunLogger, RuntimeFailure, make_folder, write_json
from .metrics import summary
from .policy import make_policy
from .replay import mean_demonstration
from .runner import PolicyLike, RolloutOptions, RolloutResult, Runner
from .simulator import action_space, check_space
from .video import write_video

FPS = 20.0
"""Of a video, if the recipe has no `env.fps`."""


def env_config(pipeline: Pipeline, names: Sequence[str] = (), **changes: Any) -> Env:
    """The run's `env:` section with what a command line changes of it (None changes nothing)."""
    said = pipeline.model.plan.recipe.env
    if said is None and not names:
        raise ConfigError("env: the recipe has none; name one with --env, or add env: {name: ...}")
    base = Env(name=list(names)) if said is None else said
    return base.model_copy(update={k: v for k, v in changes.items() if v is not None})


def rollout(
    pipeline: Pipeline,
    section: Env,
    *,
    names: Sequence[str] = (),
    seeds: Sequence[int] = range(2000, 2050),
    options: RolloutOptions | None = None,
    folder: Path | None = None,
    log: RunLogger | None = None,
) -> dict[str, dict[str, Any]]:
    """`{environment: figures}`, for one or several environments of the section, or `names`.

    With a folder, writes `rollout-<environment>.json` and the videos into it. Raises RecipeError
    where an environment does not fit the policy, before its first step.
    """
    options, found = options or RolloutOptions(), {}
    pipeline.model.eval()
    for name in names or section.names:
        acting = make_checked_policy(pipeline, section, name, options)
        runner = Runner(acting, name, section, options)
        try:
            rolled = runner.run(seeds, log)
        except RuntimeError as error:  # a simulator that can draw no picture
            raise (
                error if isinstance(error, RuntimeFailure) else RuntimeFailure(f"{name}: {error}")
            ) from error
        found[name] = summarize(acting, rolled)
        if folder is not None:
            write(folder, runner, found[name])
    return found


def make_checked_policy(
    pipeline: Pipeline, section: Env, name: str, options: RolloutOptions
) -> PolicyLike:
    """The model as a policy of an environment whose actions it can give, or its stand-in."""
    _, task = find_control_task(pipeline.model.plan, section.task, "env.task")
    bounds = check_space(action_space(name, section), task.chunk.dof, f"env.name: {name}")
    policy = make_policy(pipeline, section, bounds)
    if section.instruction_column in task.columns() and not options.ablation.texts(
        section, name, [0]
    ):
        raise ConfigError(
            f"env.instruction: {name} has none for {{{section.instruction_column}}} of the "
            'prompt; add one, for example instruction: "reach the goal"'
        )
    if options.ablation.open_loop:
        return mean_demonstration(name, section)
    return policy


def summarize(acting: PolicyLike, rolled: RolloutResult) -> dict[str, Any]:
    """The summary, with speeds: of the model alone, and with the simulator."""
    found = summary(rolled.episodes)
    return {
        **found,
        "model_calls": acting.calls,
        "model_seconds": acting.seconds,
        "steps_per_model_second": found["steps"] / acting.seconds if acting.seconds else None,
        "steps_per_second": found["steps"] / rolled.wall,
    }


def write(folder: Path, runner: Runner, figure: Mapping[str, Any]) -> Path:
    """Write figures, episodes, the first one's trajectory and videos; return the JSON's path."""
    make_folder(folder)
    label, rolled, fps = runner.options.ablation.label(), runner.rolled, runner.section.fps
    stem = "-".join(filter(None, ("rollout", *runner.name.replace(":", "/").split("/"), label)))
    videos = [
        write_video(folder / f"{stem}-{seed}{runner.options.suffix}", frames, fps or FPS).name
        for seed, frames in rolled.frames.items()
    ]
    first = rolled.episodes[0]
    value = {
        "env": runner.name,
        "ablation": label,
        "summary": figure,
        "videos": videos,
        "fps": fps,
        "trajectory": {
            "seed": first.seed,
            "commands": np.array(first.commands).tolist(),
            "hand": np.array(first.hand).tolist(),
        },
        "episodes": [episode.to_json() for episode in rolled.episodes],
    }
    path = folder / f"{stem}.json"
    write_json(path, value)
    return path
