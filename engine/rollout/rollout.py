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
    """Return the run's `env:` section, changed by a command line (None changes nothing)."""
    section = pipeline.model.plan.recipe.env
    if section is None and not names:
        raise ConfigError("env: the recipe has none; name one with --env, or add env: {name: ...}")
    base = Env(name=list(names)) if section is None else section
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
    """Return `{environment: figures}`, for one or several environments of the section, or `names`.

    With a folder, writes `rollout-<environment>.json` and the videos into it; where an environment
    fails, those of the episodes that were whole by then, with what stopped it. Raise ConfigError
    where an environment does not fit the policy, before its first step, and RuntimeFailure, which
    names environment, seed and step, where its own code fails.
    """
    options, figures = options or RolloutOptions(), dict[str, dict[str, Any]]()
    pipeline.model.eval()
    for name in names or section.names:
        acting = make_checked_policy(pipeline, section, name, options)
        runner = Runner(acting, name, section, options)
        try:
            runner.run(seeds, log)
        except RuntimeFailure as error:
            if folder is None or not runner.rolled.episodes:
                raise
            path = write(folder, runner, summarize(acting, runner.rolled), stopped=str(error))
            count = len(runner.rolled.episodes)
            raise RuntimeFailure(
                f"{error}; the {count} of {len(seeds)} episodes before it are in {path}"
            ) from error
        figures[name] = summarize(acting, runner.rolled)
        if folder is not None:
            write(folder, runner, figures[name])
    return figures


def make_checked_policy(
    pipeline: Pipeline, section: Env, name: str, options: RolloutOptions
) -> PolicyLike:
    """Return the model as a policy of an environment that takes its actions, or its stand-in."""
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
    """Return the summary, with speeds: of the model alone, and with the simulator."""
    figures = summary(rolled.episodes)
    return {
        **figures,
        "model_calls": acting.calls,
        "undecodable_chunks": acting.undecodable,
        "model_seconds": acting.seconds,
        "steps_per_model_second": figures["steps"] / acting.seconds if acting.seconds else None,
        "steps_per_second": figures["steps"] / rolled.wall,
    }


def write(
    folder: Path, runner: Runner, figure: Mapping[str, Any], stopped: str | None = None
) -> Path:
    """Write figures, episodes, the first one's trajectory, and videos; return the JSON's path.

    stopped: why there are fewer episodes than requested.
    """
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
        "stopped": stopped,
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
