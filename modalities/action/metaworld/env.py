"""Meta-World's robot arm as a gymnasium environment with a dict for an observation.

Its own `reset(seed=)` is ignored, and each of its resets deals one of fifty layouts: here a
seed means the episode that `gym.make("Meta-World/MT1", env_name=..., seed=seed)` and one reset
give. Source: Meta-World (v3), https://meta-world.github.io.

Observation: `state [39]` (hand 0:4, object 4:18, the same a step before 18:36, goal 36:39),
`proprio [8]` (the hand alone, now and a step before), and a picture a camera, uint8
`[size, size, 3]`. Action `[4]` in [-1, 1]: the hand's displacement, and the gripper's effort.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium
import metaworld
import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.envs.mujoco import MujocoEnv
from metaworld.policies import ENV_POLICY_MAP
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from ...base import Count, PositiveInt
from ...messages import did_you_mean
from .instructions import heldout_instruction, train_instructions
from .rendering import OffscreenRenderer

PROPRIO = (0, 1, 2, 3, 18, 19, 20, 21)
"""The proprioceptive part of the state: its hand, now and a step before."""

CAMERAS = ("corner", "corner2", "corner3", "corner4", "topview", "behindGripper", "gripperPOV")

RATE = 80.0
"""Control steps a second of simulated time."""

GOAL_COLOUR = (1.0, 0.0, 1.0, 1.0)
"""The goal's dot is red like the arm, in some tasks; nothing else is magenta."""

FIRST = {"development": 2000, "test": 5000}
"""A split's first seed, in their order. From there on, no instruction of training is used."""

SHOWN = 240
"""Px a side of pictures for a viewer."""

Observation = dict[str, np.ndarray]


class MetaWorld(gymnasium.Env[Observation, np.ndarray]):
    """One task, `push-v3`. An episode is decided by its seed alone; `reset()` without one begins
    the same episode again. cameras: names of `CAMERAS`. size: px a side of their pictures.

    Raise ValueError for a task or a camera that Meta-World does not have.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": int(RATE)}
    render_mode = "rgb_array"

    def __init__(
        self, task: str, seed: Count = 0, *, cameras: Sequence[str] = (), size: PositiveInt = 128
    ) -> None:
        _check_name("task", task, metaworld.MT1.ENV_NAMES)
        for camera in cameras:
            _check_name("camera", camera, CAMERAS)
        self.task, self.seed, self.cameras, self.size = task, seed, tuple(cameras), size
        self.inner: Any = None
        self._drawers: dict[int, OffscreenRenderer] = {}
        picture = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {
                "state": spaces.Box(-np.inf, np.inf, (39,), np.float32),
                "proprio": spaces.Box(-np.inf, np.inf, (len(PROPRIO),), np.float32),
                **dict.fromkeys(cameras, picture),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin the episode of a seed: its own simulation, and its one reset."""
        super().reset(seed=seed)
        self.seed = self.seed if seed is None else seed
        self.inner = _make(self.task, self.seed)
        state, info = self.inner.reset()
        self._drawers = {}
        _recolour(self.simulator.model)
        return self._observed(state), info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """As gymnasium's; `info["success"]` is 1.0 where the task is done at this step."""
        state, reward, terminated, truncated, info = self.inner.step(np.asarray(action, np.float32))
        return self._observed(state), float(reward), terminated, truncated, info

    def render(self) -> np.ndarray:
        """For a person: the scene from `corner2`, a camera that hangs upside down, put upright."""
        return np.ascontiguousarray(self.picture("corner2", SHOWN)[::-1, ::-1])

    def picture(self, camera: str, size: int | None = None) -> np.ndarray:
        """Return the picture of a camera, uint8 `[size, size, 3]`; RuntimeError where nothing can
        draw."""
        size = size or self.size
        if size not in self._drawers:
            self._drawers[size] = OffscreenRenderer(
                self.simulator.model, self.simulator.model_name, size
            )
        return self._drawers[size].picture(self.simulator.data, camera)

    @staticmethod
    def expert(task: str) -> Callable[[Observation], np.ndarray]:
        """Return the scripted controller of a task: observation -> action."""
        act = expert(task)
        return lambda observation: act(observation["state"])

    @staticmethod
    def instruction(task: str, seed: int) -> str:
        """Return the text that describes the task in an episode.

        Raise ValueError for a task without instructions.
        """
        splits = [split for split, first in FIRST.items() if seed >= first]
        return (
            heldout_instruction(task, splits[-1])
            if splits
            else train_instructions(task)[seed % len(train_instructions(task))]
        )

    @property
    def simulator(self) -> Any:
        """Meta-World's own environment, with MuJoCo's `model` and `data`."""
        return self.inner.unwrapped

    def _observed(self, state: np.ndarray) -> Observation:
        values = np.asarray(state, np.float32)
        pictures = {camera: self.picture(camera) for camera in self.cameras}
        return {"state": values, "proprio": values[list(PROPRIO)], **pictures}


def expert(task: str) -> Callable[[np.ndarray], np.ndarray]:
    """The scripted controller of a task: `state [39]` -> action `[4]`, clipped to its space."""
    _check_name("task", task, tuple(ENV_POLICY_MAP))
    policy = ENV_POLICY_MAP[task]()

    def act(state: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():  # it warns of a step beyond its limit
            warnings.simplefilter("ignore")
            action = policy.get_action(np.asarray(state, np.float64))
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    return act


def _make(task: str, seed: int) -> Any:
    still = _patched(SawyerXYZEnv, "_reset_hand", _skip_reset_hand)
    with still, _patched(MujocoEnv, "_initialize_simulation", _simulation):
        return gymnasium.make("Meta-World/MT1", env_name=task, seed=seed, disable_env_checker=True)


def _skip_reset_hand(env: Any, steps: int = 50) -> None:
    """Deal the fifty layouts without moving the arm into place for each: no layout depends on
    it, and two thirds of the time to make an environment go there. What a layout may read (the
    lever's orientation) is known once the poses are computed."""
    mujoco.mj_forward(env.model, env.data)
    env.init_tcp = env.tcp_center


_compile = MujocoEnv._initialize_simulation


def _simulation(env: Any) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """Compiles a model's XML once a process, and copies it after that: eight times as fast."""
    if env.fullpath not in _MODELS:
        _MODELS[env.fullpath] = copy.copy(_compile(env)[0])
    model = copy.copy(_MODELS[env.fullpath])
    return model, mujoco.MjData(model)


_MODELS: dict[str, mujoco.MjModel] = {}


@contextlib.contextmanager
def _patched(owner: type, name: str, function: Callable[..., Any]) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _recolour(model: Any) -> None:
    for index in range(model.nsite):
        if "goal" in model.site(index).name:
            model.site_rgba[index] = GOAL_COLOUR


def _check_name(kind: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise ValueError(f"{kind}: Meta-World has no {kind} {name!r}{did_you_mean(name, names)}")
