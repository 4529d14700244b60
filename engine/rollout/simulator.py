"""`env:` of a recipe: which environments a control task drives, and how they meet its streams.

`family/task` is an environment of a modality's `envs` or of a plug-in (`metaworld/push-v3`), or of
a class named in full (`my_file:Line/go`); any other name is passed to `gymnasium.make`. All
are seen the same way: an observation is a flat dict of arrays (one that is a single array becomes
`state`; parts of parts, and those of a tuple, are called `robot.position`, `0`, `1`), a picture is
uint8 `[H, W, 3]`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from ...modalities.messages import did_you_mean
from ..recipe import Env, find, import_optional, load, registered
from ..utils import ConfigError, RuntimeFailure, located_errors

SINGLE = "state"
"""What an observation that is a single array is called."""
RENDER = "render"
"""A gymnasium environment's own picture, as a camera's name."""
DRAWN = "rgb_array"
"""The `render_mode` in which `render` returns a picture."""


class Simulator:
    """An environment as a policy meets it: its observations are copied, since environments may
    write each observation into the same memory. draw: its `picture` will be used.

    Raise ConfigError if there is no such environment, or if it cannot draw; RuntimeFailure,
    which names environment, seed and step, for any error of its own code.
    """

    def __init__(self, name: str, section: Env, *, draw: bool = False) -> None:
        self.name, self.seed, self.steps = name, 0, 0
        family = env_class(name)
        unknown = [c for c in section.cameras if family is None and c != RENDER]
        if unknown:
            raise ConfigError(
                f"env.cameras: {name} has no camera {unknown[0]!r}; use {RENDER} for the picture "
                "that it renders"
            )
        self._rendered = family is None and bool(section.cameras)
        self.env = _make(name, family, section, draw=draw or self._rendered)

    def reset(self, seed: int) -> dict[str, Any]:
        """Return the first observation of the episode of a seed."""
        self.seed, self.steps = seed, 0
        with self._located():
            observation, _ = self.env.reset(seed=seed)
            return self._observed(observation)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], bool, dict[str, Any]]:
        """Return the observation, whether the episode is over, and `info`."""
        with self._located():
            observation, _, terminated, truncated, info = self.env.step(np.array(action))
            result = self._observed(observation), bool(terminated or truncated), dict(info)
        self.steps += 1
        return result

    def picture(self) -> np.ndarray | None:
        """Return the rendered picture, uint8 `[H, W, 3]`; None without rendering."""
        with self._located():
            return _pixels(self.env.render())

    def close(self) -> None:
        with self._located():
            self.env.close()

    def _located(self) -> AbstractContextManager[None]:
        """Return a block in which any error of the environment's code becomes one line."""
        location = f"{self.name}, seed {self.seed}, step {self.steps}"
        return located_errors(location, error_class=RuntimeFailure)

    def _observed(self, observation: Any) -> dict[str, Any]:
        several = isinstance(observation, (Mapping, tuple))
        values = copy.deepcopy(dict(_parts(observation)) if several else {SINGLE: observation})
        return {**values, RENDER: self.picture()} if self._rendered else values


def _parts(observation: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the arrays of an observation, by their names; those of parts behind a dot."""
    named = observation.items() if isinstance(observation, Mapping) else enumerate(observation)
    for key, value in named:
        if isinstance(value, (Mapping, tuple)):
            yield from _parts(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _pixels(picture: Any) -> np.ndarray | None:
    """Return a rendered picture, uint8 `[H, W, 3]`; floats in [0, 1] are scaled. Raise ValueError
    for one of another form."""
    if picture is None:
        return None
    pixels = np.array(picture)
    if pixels.dtype.kind == "f" and pixels.size and pixels.min() >= 0 and pixels.max() <= 1:
        pixels = np.rint(pixels * 255).astype(np.uint8)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"render returned {pixels.dtype} {list(pixels.shape)}, expected a picture, uint8 "
            "[H, W, 3], or floats in [0, 1]"
        )
    return pixels


def env_class(name: str) -> Any | None:
    """Return the class that makes `family/task`, or None if `gymnasium.make` does.

    family: a name of `Modality.envs` or of a plug-in, or `module:Class`.
    """
    family, slash, _ = name.partition("/")
    module, colon, attribute = family.partition(":")
    registered_here = (
        hasattr(load(module), attribute) if slash and colon else family in registered("env")
    )
    return find("env", family, "env.name") if slash and registered_here else None


def _make(name: str, family: Any | None, section: Env, *, draw: bool) -> Any:
    gymnasium = import_optional("gymnasium")
    pictures = " with pictures (env.cameras, --num-videos)" if draw and family is None else ""
    with located_errors(f"env.name: {name} cannot be made{pictures}"):
        if family is not None:
            task = name.partition("/")[2]
            return family(task, cameras=section.cameras, size=section.size, **section.options)
        module, colon, _ = name.partition(":")
        if colon:
            load(module)  # a file of the current folder may be meant
        # Many environments have no `render_mode`: it is passed only if pictures are needed.
        options = {**({"render_mode": DRAWN} if draw else {}), **section.options}
        try:
            return gymnasium.make(name, **options)
        except gymnasium.error.UnregisteredEnv as error:
            near = did_you_mean(name, gymnasium.registry)
            raise ConfigError(
                f"env.name: gymnasium has no {name!r}{near} (module:name imports it first)"
            ) from error


def action_space(name: str, section: Env) -> Any:
    """Return the environment's space of actions, without its pictures."""
    simulator = Simulator(name, section.model_copy(update={"cameras": []}))
    simulator.close()
    return simulator.env.action_space


def check_space(space: Any, dof: int | None, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds `[dof]` of an action space; ConfigError where it is none for actions of
    `dof`."""
    shape, low = getattr(space, "shape", None), getattr(space, "low", None)
    if low is None or shape is None or len(shape) != 1:
        raise ConfigError(
            f"{where}: takes actions of {space}, expected a Box of one axis; a control task gives "
            f"{dof} numbers a step"
        )
    if dof is not None and shape[0] != dof:
        raise ConfigError(
            f"{where}: takes actions of {shape[0]} numbers, the policy was fitted on {dof}; roll "
            "out where the demonstrations came from, or train on such actions"
        )
    return np.asarray(space.low, np.float32), np.asarray(space.high, np.float32)


def instructions(section: Env, name: str, seeds: Sequence[int]) -> list[str]:
    """Return the instruction of every episode: the recipe's, its paraphrases taken in turn by the
    seed, or the environment's own words; none where neither has any."""
    texts = section.texts(name)
    if texts:
        return [texts[seed % len(texts)] for seed in seeds]
    instruct = getattr(env_class(name), "instruction", None)
    task = name.partition("/")[2]
    try:
        return [instruct(task, seed) for seed in seeds] if instruct else []
    except ValueError:
        return []
