"""A scripted expert's episodes of Meta-World, recorded after clipping.

Noise for robustness follows Laskey et al., "DART: Noise Injection for Robust Imitation Learning",
2017: the robot is disturbed, the label is the expert's action. DART labels every disturbed
state with one clean action; a chunk of actions needs the ones after it too. So a disturbed
episode is not recorded while it is disturbed: from the layout's start it runs with noise for a
number of steps that is drawn, and then the expert continues alone, recorded, from where that left
it. Every recorded action is the expert's own, clean and clipped, at the state beside it.
"""

from __future__ import annotations

import copy
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from PIL import Image

from ..datasets import Recording
from .env import MetaWorld, Observation, expert

WHOLE = mujoco.mjtState.mjSTATE_INTEGRATION.value
"""The full state of a simulation, the start of its solver included."""

TOO_LONG = 250
"""Steps after which an episode that has not succeeded is given up."""


@dataclass(frozen=True)
class ExpertRecorder:
    """One task's expert. noise: deviation of the noise added to each action, which lies in [-1, 1].
    branches: disturbed episodes a seed, beside its clean one. hold: steps recorded after the
    first success. cameras, size: pictures that are kept, PNG."""

    task: str
    noise: float = 0.0
    branches: int = 0
    hold: int = 20
    cameras: tuple[str, ...] = ()
    size: int = 128

    def episodes(self, seed: int, words: Sequence[str]) -> Iterator[Recording | None]:
        """Yield the clean episode of a seed, then the disturbed ones; None for one that failed.
        words: instructions, of which one is drawn."""
        rng = np.random.default_rng([zlib.crc32(self.task.encode()), seed])
        env = MetaWorld(self.task, seed)
        first, _ = env.reset()
        begin = SimulatorSnapshot(env)
        clean = self._recorded(env, first, words[int(rng.integers(len(words)))])
        yield clean
        longest = TOO_LONG // 2 if clean is None else len(clean) - self.hold
        for _ in range(self.branches):
            begin.restore()
            observation = self._disturbed(env, first, int(rng.integers(1, longest + 1)), rng)
            yield self._recorded(env, observation, words[int(rng.integers(len(words)))])

    def _disturbed(
        self, env: MetaWorld, observation: Observation, steps: int, rng: np.random.Generator
    ) -> Observation:
        """Return the observation after some steps with noise, or at the first success in them."""
        act = expert(self.task)
        for _ in range(steps):
            noisy = act(observation["state"]) + self.noise * rng.standard_normal(4)
            observation, _, _, _, info = env.step(np.clip(noisy, -1, 1).astype(np.float32))
            if info["success"]:
                break
        return observation

    def _recorded(self, env: MetaWorld, observation: Observation, words: str) -> Recording | None:
        act, steps, remaining, succeeded = (
            expert(self.task),
            list[dict[str, Any]](),
            TOO_LONG,
            False,
        )
        while remaining > 0:
            action = act(observation["state"])
            pictures = {camera: _png(env.picture(camera, self.size)) for camera in self.cameras}
            arrays = {
                "state": observation["state"],
                "proprio": observation["proprio"],
                "action": action,
            }
            if not all(np.isfinite(values).all() for values in arrays.values()):
                return None
            steps.append({**arrays, **pictures})
            observation, _, _, _, info = env.step(action)
            remaining -= 1
            if info["success"] and not succeeded:
                succeeded, remaining = True, self.hold
        return Recording(words, _columns(steps)) if succeeded else None


class SimulatorSnapshot:
    """A snapshot of an environment, to be restored: MuJoCo's state, and the values that the classes
    around it count or remember (numbers and arrays)."""

    def __init__(self, env: MetaWorld) -> None:
        self.env = env
        model, data = env.simulator.model, env.simulator.data
        self.state = np.empty(mujoco.mj_stateSize(model, WHOLE))
        mujoco.mj_getState(model, data, self.state, WHOLE)
        self.kept = [(layer, _memory(layer)) for layer in _layers(env.inner)]

    def restore(self) -> None:
        model, data = self.env.simulator.model, self.env.simulator.data
        mujoco.mj_setState(model, data, self.state, WHOLE)
        mujoco.mj_forward(model, data)  # places follow from the state, and the cameras see them
        mujoco.mj_setState(model, data, self.state, WHOLE)  # the solver's start, which that moved
        for layer, memory in self.kept:
            vars(layer).update(copy.deepcopy(memory))


def _layers(env: Any) -> Iterator[Any]:
    """Yield a gymnasium environment and those that it wraps, from the outside to the
    inside."""
    yield env
    while env is not env.unwrapped:
        env = env.env
        yield env


def _memory(layer: Any) -> dict[str, Any]:
    types = (bool, int, float, str, np.ndarray, np.generic, type(None))
    return {k: copy.deepcopy(v) for k, v in vars(layer).items() if isinstance(v, types)}


def _columns(steps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Dicts a step -> columns: arrays stacked, pictures unchanged."""
    cells = {name: [step[name] for step in steps] for name in steps[0]}
    return {k: v if isinstance(v[0], bytes) else np.stack(v) for k, v in cells.items()}


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    # Half the time of the default, for a tenth more bytes.
    Image.fromarray(picture).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
