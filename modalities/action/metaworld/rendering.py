"""Pictures of a MuJoCo simulation on a machine without a display.

One OpenGL context serves a whole process: with a second one, OSMesa renders noise and
reports no error. Without multisampling, shadows and reflections, software draws an order of
magnitude faster, and a policy does not miss them.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import sys
from typing import Any

import numpy as np

CURE = "apt install libegl1 libegl-mesa0"


def _context_modules() -> list[str]:
    """Modules of MuJoCo that make an OpenGL context: the one that was chosen, where there is a
    display or `MUJOCO_GL`, else those that need no display."""
    headless = sys.platform == "linux" and not os.environ.get("DISPLAY")
    chosen = os.environ.get("MUJOCO_GL")
    return ["mujoco.egl", "mujoco.osmesa"] if headless and not chosen else ["mujoco.gl_context"]


@functools.cache
def _context() -> Any:
    """Return the process's one OpenGL context. Raise RuntimeError, with the cure, where none is
    had."""
    wrong = []
    for module in _context_modules():
        try:
            context = importlib.import_module(module).GLContext(640, 640)
            context.make_current()
            atexit.register(context.free)  # before the library that it belongs to
            return context
        except Exception as error:  # each backend has its own errors
            wrong.append(f"{module}: {type(error).__name__}")
    raise RuntimeError(_complaint("; ".join(wrong)))


def _complaint(wrong: str) -> str:
    return f"pictures: MuJoCo found nothing to draw with ({wrong}); expected EGL or OSMesa: {CURE}"


@functools.cache
def _resources(model_name: str, size: int, holder: _Model) -> Any:
    """Return a model's meshes and textures in OpenGL; simulations of one model share them."""
    import mujoco

    _context().make_current()
    try:
        context = mujoco.MjrContext(holder.model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
    except mujoco.FatalError as error:  # a window system's context without its display
        raise RuntimeError(_complaint(os.environ.get("MUJOCO_GL") or "glfw")) from error
    mujoco.mjr_resizeOffscreen(size, size, context)
    return context


class _Model:
    """A model as an argument that does not count in a cache's key."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Model)

    def __hash__(self) -> int:
        return 0


class OffscreenRenderer:
    """Draws one simulation. model_name: what its model file is called; size: px a side."""

    def __init__(self, model: Any, model_name: str, size: int) -> None:
        import mujoco

        _context()
        self.model, self.name, self.size = model, model_name, size
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
        self._scene = mujoco.MjvScene(model=model, maxgeom=2000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._option = mujoco.MjvOption()

    def picture(self, data: Any, camera: str) -> np.ndarray:
        """Return the picture of a named camera, uint8 `[size, size, 3]`."""
        import mujoco

        view = mujoco.MjvCamera()
        view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        view.fixedcamid = self.model.camera(camera).id
        category = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self.model, data, self._option, None, view, category, self._scene)
        _context().make_current()
        resources = _resources(self.name, self.size, _Model(self.model))
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, resources)
        where = mujoco.MjrRect(0, 0, self.size, self.size)
        pixels = np.empty((self.size, self.size, 3), np.uint8)
        mujoco.mjr_render(where, self._scene, resources)
        mujoco.mjr_readPixels(pixels, None, where, resources)
        return np.ascontiguousarray(pixels[::-1])  # OpenGL counts rows from below
