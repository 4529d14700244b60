"""MuJoCo models compiled once a process: a copy takes milliseconds, compiling the meshes of a robot
takes a tenth of a second, and a seed of Meta-World asks for it twice."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator
from typing import Any

import mujoco
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv

KEPT = 8
"""Models in memory; one holds its meshes and textures."""


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """Environments that are made inside get copies of models that were compiled before."""
    whole = MujocoEnv._initialize_simulation
    MujocoEnv._initialize_simulation = _simulation
    try:
        yield
    finally:
        MujocoEnv._initialize_simulation = whole


def _simulation(self: Any) -> tuple[Any, Any]:
    """As gymnasium's own, but for where the model comes from."""
    model = copy.copy(_compiled(str(self.fullpath)))
    view = model.vis.global_
    view.offwidth = max(view.offwidth, self.width)
    view.offheight = max(view.offheight, self.height)
    return model, mujoco.MjData(model)


@functools.lru_cache(maxsize=KEPT)
def _compiled(path: str) -> Any:
    return mujoco.MjModel.from_xml_path(path)
