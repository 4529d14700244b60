"""Episodes of one environment in parallel: one forward for all that need a chunk."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..recipe import Env
from ..utils import ConfigError, RunLogger, RuntimeFailure
from .ablations import Ablation
from .metrics import Episode
from .simulator import Simulator

STEPS = 500
"""Where neither the recipe nor the environment ends an episode."""


class PolicyLike(Protocol):
    """The interface of a policy. observation_keys: stream -> key or keys of an observation."""

    calls: int
    seconds: float
    undecodable: int

    @property
    def observation_keys(self) -> Mapping[str, Any]: ...

    def reset(self, texts: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None: ...

    def step(self, observations: Sequence[Any], indices: Sequence[int]) -> np.ndarray: ...


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
    """One environment's episodes. Raise RuntimeFailure, which names episode and step, where the
    policy returns or receives a value that is not finite, or the environment fails; the episodes
    that were complete by then stay in `rolled`."""

    def __init__(
        self, acting: PolicyLike, name: str, section: Env, options: RolloutOptions
    ) -> None:
        self.acting, self.name, self.section, self.options = acting, name, section, options
        self.steps = section.max_steps or STEPS
        self.rolled = RolloutResult()
        self._simulators: list[Simulator] = []

    def run(self, seeds: Sequence[int], log: RunLogger | None = None) -> RolloutResult:
        """Run an episode a seed, `batch` at a time."""
        start_time, size = time.perf_counter(), min(self.options.num_envs, len(seeds))
        self.options.ablation.check(self.acting.observation_keys, size, len(seeds))
        try:
            for index in range(size):
                draw = index < self.options.num_videos
                self._simulators.append(Simulator(self.name, self.section, draw=draw))
            for start in range(0, len(seeds), size):
                self._run_batch(seeds[start : start + size], self.options.num_videos - start)
                if log is not None:
                    log.progress(self.name, len(self.rolled.episodes), len(seeds))
        finally:
            self.rolled.wall += time.perf_counter() - start_time
            self._close()
        return self.rolled

    def _close(self) -> None:
        for simulator in self._simulators:
            with contextlib.suppress(RuntimeFailure):  # the episodes are over
                simulator.close()

    def _run_batch(self, seeds: Sequence[int], num_videos: int) -> None:
        column = self.section.instruction_column
        texts = self.options.ablation.texts(self.section, self.name, seeds) or [""] * len(seeds)
        self.acting.reset(
            [{column: text} if text else {} for text in texts],
            [f"{self.name}, seed {seed}" for seed in seeds],
        )
        episodes = [Episode(seed, text) for seed, text in zip(seeds, texts, strict=True)]
        self.rolled.frames |= {seed: [] for seed in seeds[: max(0, num_videos)]}
        over: set[int] = set()
        try:
            self._roll(episodes, over)
        finally:
            finished = [episode for i, episode in enumerate(episodes) if i in over]
            self.rolled.episodes += finished
            unfinished = {seed for i, seed in enumerate(seeds) if i not in over}
            frames = self.rolled.frames
            self.rolled.frames = {s: f for s, f in frames.items() if s not in unfinished}

    def _roll(self, episodes: Sequence[Episode], over: set[int]) -> None:
        """Run episodes side by side; `over` gets the places of those that have ended."""
        observations = [self._simulators[i].reset(each.seed) for i, each in enumerate(episodes)]
        for _ in range(self.steps):
            alive = [i for i in range(len(episodes)) if i not in over]
            if not alive:
                return
            ablated = self.options.ablation.apply(observations, self.acting.observation_keys)
            actions = self.acting.step([ablated[i] for i in alive], alive)
            for i, action in zip(alive, actions, strict=True):
                observations[i], ended = self._step(i, episodes[i], action)
                over |= {i} if ended else set()
        over |= set(range(len(episodes)))

    def _step(
        self, index: int, episode: Episode, action: np.ndarray
    ) -> tuple[dict[str, Any], bool]:
        simulator, frames = self._simulators[index], self.rolled.frames.get(episode.seed)
        if frames is not None and (picture := simulator.picture()) is not None:
            frames.append(picture)
        observation, ended, info = simulator.step(action)
        hand = self.section.end_effector_key
        if hand is not None and hand not in observation:
            raise ConfigError(
                f"env.end_effector_key: {self.name} observes no {hand!r}; there are "
                f"{', '.join(observation)}"
            )
        position = None if hand is None else np.array(observation[hand], np.float64)[:3]
        episode.record(np.array(action), self._success(info), position)
        return observation, ended

    def _success(self, info: Mapping[str, Any]) -> bool:
        """Return whether `info` reports success at this step."""
        key = self.section.success_key
        if key not in info:
            raise ConfigError(
                f"env.success_key: {self.name} reports no {key!r}; its info has "
                f"{', '.join(map(str, info)) or 'nothing'}"
            )
        value = np.asarray(info[key])
        if value.size != 1 or value.dtype.kind not in "biuf" or value.item() not in (0, 1):
            raise ConfigError(
                f"env.success_key: {self.name} reports {info[key]!r} of {key!r}, expected one "
                "boolean; name another key of its info"
            )
        return bool(value.item())
