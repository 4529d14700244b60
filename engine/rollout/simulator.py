"""`env:` of a recipe: which environments a control task drives, and how they meet its streams.

`family/task` is an environment of a modality's `envs` or of a plug-in (`metaworld/push-v3`), or of
a class named in full (`my_file:Line/go`); any other name is one that `gymnasium.make` knows. All
are seen the same way: an observation is a dict of arrays (one that is a single array becomes
`state`), a picture is uint8 `[H, W, 3]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...modalities.messages import did_you_mean
from ..recipe import Env, find, import_optional, load, registered
from ..utils import ConfigError

SINGLE = "state"
"""What an observation that is a single array is called."""
RENDER = "render"
"""A gymnasium environment's own picture, as a camera's name."""


class Simulator:
    """An environment as a policy meets it. Raises RecipeError where there is no such one."""

    def __init__(self, name: str, section: Env) -> None:
        self.name = name
        family = env_class(name)
        self.env = _made(name, family, section)
        unknown = [c for c in section.cameras if family is None and c != RENDER]
        if unknown:
            raise ConfigError(
                f"env.cameras: {name} has no camera {unknown[0]!r}; say {RENDER} for the picture "
                "that it renders"
            )
        self._rendered = family is None and bool(section.cameras)

    def reset(self, seed: int) -> dict[str, Any]:
        """The first observation of the episode of a seed."""
        found, _ = self.env.reset(seed=seed)
        return self._observed(found)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], bool, dict[str, Any]]:
        """Observation, whether the episode is over, and `info`."""
        found, _, ended, cut, info = self.env.step(action)
        return self._observed(found), bool(ended or cut), info

    def picture(self) -> np.ndarray | None:
        """What a person would look at, uint8 `[H, W, 3]`; None where nothing is drawn."""
        found = self.env.render()
        return None if found is None else np.asarray(found, np.uint8)

    def close(self) -> None:
        self.env.close()

    def _observed(self, found: Any) -> dict[str, Any]:
        seen = dict(found) if isinstance(found, Mapping) else {SINGLE: found}
        return {**seen, RENDER: self.picture()} if self._rendered else seen


def env_class(name: str) -> Any | None:
    """Return the class that makes `family/task`, or None if `gymnasium.make` does.

    family: a name of `Modality.envs` or of a plug-in, or `module:Class`.
    """
    family, slash, _ = name.partition("/")
    module, colon, attribute = family.partition(":")
    known = hasattr(load(module), attribute) if slash and colon else family in registered("env")
    return find("env", family, "env.name") if slash and known else None


def _made(name: str, family: Any | None, section: Env) -> Any:
    gymnasium = import_optional("gymnasium")
    try:
        if family is not None:
            task = name.partition("/")[2]
            return family(task, cameras=section.cameras, size=section.size, **section.options)
        module, colon, _ = name.partition(":")
        if colon:
            load(module)  # a file of the current folder may be meant
        return gymnasium.make(name, **{"render_mode": "rgb_array", **section.options})
    except gymnasium.error.UnregisteredEnv as error:
        near = did_you_mean(name, gymnasium.registry)
        raise ConfigError(
            f"env.name: gymnasium knows no {name!r}{near} (module:name imports it first)"
        ) from error
    except (gymnasium.error.Error, ValueError, TypeError, ModuleNotFoundError) as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"env.name: {name} cannot be made: {told}") from error


def action_space(name: str, section: Env) -> Any:
    """The environment's space of actions, without its pictures."""
    simulator = Simulator(name, section.model_copy(update={"cameras": []}))
    simulator.close()
    return simulator.env.action_space


def check_space(space: Any, dof: int | None, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The bounds `[dof]` of an action space; RecipeError where it is none for actions of `dof`."""
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
    """The instruction of every episode: the recipe's, its paraphrases taken in turn by the seed,
    or the environment's own words; none where neither has any."""
    texts = section.texts(name)
    if texts:
        return [texts[seed % len(texts)] for seed in seeds]
    instruct = getattr(env_class(name), "instruction", None)
    task = name.partition("/")[2]
    try:
        return [instruct(task, seed) for seed in seeds] if instruct else []
    except ValueError:
        return []
