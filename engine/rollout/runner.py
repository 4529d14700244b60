"""Episodes of one environment, side by side: the model is asked once for all that need a chunk."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..recipe import Env
from ..utils import ConfigError, RunLogger
from .ablations import Ablation
from .metrics import Episode
from .simulator import Simulator

STEPS = 500
"""Where neither the recipe nor the environment ends an episode."""


class PolicyLike(Protocol):
    """The interface of a policy. observation_keys: stream -> key or keys of an observation."""

    calls: int
    seconds: float

    @property
    def observation_keys(self) -> Mapping[str, Any]: ...

    def reset(self, texts: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None: ...

    def step(self, observations: Sequence[Any], who: Sequence[int]) -> np.ndarray: ...


@dataclass(frozen=True)
class RolloutOptions:
    """num_envs: environments in parallel. num_videos: number of first episodes that are recorded,
    in the format of `suffix`."""

    num_envs: int = 25
    ablation: Ablation = field(default_factory=Ablation)
    num_videos: int = 0
    suffix: str = ".gif"


@dataclass
class RolloutResult:
    """The finished episodes. frames: images by seed. wall: seconds, with the simulator."""

    episodes: list[Episode] = field(default_factory=list)
    frames: dict[int, list[np.ndarray]] = field(default_factory=dict)
    wall: float = 0.0


class Runner:
    """One environment's episodes. Raises RunError, which names episode and step, where the policy
    gives or is given what is not finite."""

    def __init__(
        self, acting: PolicyLike, name: str, section: Env, options: RolloutOptions
    ) -> None:
        self.acting, self.name, self.section, self.options = acting, name, section, options
        self.steps = section.max_steps or STEPS
        self.rolled = RolloutResult()
        self._simulators: list[Simulator] = []

    def run(self, seeds: Sequence[int], log: RunLogger | None = None) -> RolloutResult:
        """An episode a seed, `batch` at a time."""
        began, size = time.perf_counter(), min(self.options.num_envs, len(seeds))
        self.options.ablation.check(self.acting.observation_keys, size, len(seeds))
        self._simulators = [Simulator(self.name, self.section) for _ in range(size)]
        for start in range(0, len(seeds), size):
            self._run_batch(seeds[start : start + size], self.options.num_videos - start)
            if log is not None:
                log.progress(self.name, len(self.rolled.episodes), len(seeds))
        for simulator in self._simulators:
            simulator.close()
        self.rolled.wall += time.perf_counter() - began
        return self.rolled

    def _run_batch(self, seeds: Sequence[int], num_videos: int) -> None:
        column = self.section.instruction_column
        told = self.options.ablation.texts(self.section, self.name, seeds) or [""] * len(seeds)
        self.acting.reset(
            [{column: text} if text else {} for text in told],
            [f"{self.name}, seed {seed}" for seed in seeds],
        )
        episodes = [Episode(seed, text) for seed, text in zip(seeds, told, strict=True)]
        seen = [self._simulators[i].reset(seed) for i, seed in enumerate(seeds)]
        self.rolled.episodes += episodes
        self.rolled.frames |= {seed: [] for seed in seeds[: max(0, num_videos)]}
        alive = list(range(len(seeds)))
        for _ in range(self.steps):
            shown = self.options.ablation.apply(seen, self.acting.observation_keys)
            actions = self.acting.step([shown[i] for i in alive], alive)
            over = set()
            for i, action in zip(alive, actions, strict=True):
                seen[i], ended = self._step(i, episodes[i], action)
                over |= {i} if ended else set()
            alive = [i for i in alive if i not in over]
            if not alive:
                return

    def _step(
        self, place: int, episode: Episode, action: np.ndarray
    ) -> tuple[dict[str, Any], bool]:
        simulator, frames = self._simulators[place], self.rolled.frames.get(episode.seed)
        if frames is not None and (picture := simulator.picture()) is not None:
            frames.append(picture)
        seen, ended, info = simulator.step(action)
        success, hand = self.section.success_key, self.section.end_effector_key
        if success not in info:
            raise ConfigError(
                f"env.success_key: {self.name} tells no {success!r}; its info has "
                f"{', '.join(map(str, info)) or 'nothing'}"
            )
        if hand is not None and hand not in seen:
            raise ConfigError(
                f"env.end_effector_key: {self.name} observes no {hand!r}; there are "
                f"{', '.join(seen)}"
            )
        position = None if hand is None else np.asarray(seen[hand], np.float64)[:3]
        episode.note(np.asarray(action), bool(info[success]), position)
        return seen, ended
