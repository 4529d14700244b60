"""Open-loop baseline: replay the mean demonstration, ignoring observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..recipe import Env
from ..utils import ConfigError
from .runner import STEPS
from .simulator import Simulator, env_class

SEEDS = range(50)
"""Episodes of which the mean is taken; the first of those that demonstrations come from."""


class OpenLoopReplay:
    """A policy that returns the actions `[steps, dof]` in order, then repeats the last one."""

    def __init__(self, actions: np.ndarray) -> None:
        self.actions = actions
        self.calls, self.seconds, self.undecodable = 0, 0.0, 0
        self.observation_keys = dict[str, Any]()
        self._step = 0

    def reset(self, texts: Sequence[Mapping[str, Any]] = ({},), names: Sequence[str] = ()) -> None:
        self._step = 0

    def step(self, observations: Sequence[Any], indices: Sequence[int] | None = None) -> np.ndarray:
        action = self.actions[min(self._step, len(self.actions) - 1)]
        self._step += 1
        return np.repeat(action[None], len(observations), axis=0)


def mean_demonstration(name: str, section: Env) -> OpenLoopReplay:
    """Return the mean, by step, of the actions of the environment's expert in `SEEDS`. Raise
    ConfigError if the environment has no expert."""
    expert = getattr(env_class(name), "expert", None)
    if expert is None:
        raise ConfigError(
            f"--open-loop-baseline: {name} brings no expert to replay; a class of "
            "`Modality.envs` may have one, as metaworld/push-v3 has"
        )
    simulator = Simulator(name, section.model_copy(update={"cameras": []}))
    act, steps = expert(name.partition("/")[2]), section.max_steps or STEPS
    total = np.zeros((steps, *simulator.env.action_space.shape), np.float64)
    for seed in SEEDS:
        observation = simulator.reset(seed)
        for step in range(steps):
            action = act(observation)
            total[step] += action
            observation, ended, _ = simulator.step(action)
            if ended and step + 1 < steps:
                total[step + 1 :] += action
                break
    simulator.close()
    return OpenLoopReplay((total / len(SEEDS)).astype(np.float32))
