"""Sensorium: any encoder, any language decoder, one recipe.

`load` a run's folder and ask it; `compose` a recipe's model; `save` one, or `push` it to the hub.
They are imported when first asked for, so that `import sensorium` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine.checkpoint import push
    from .engine.inference import (
        list_backbones,
        list_connectors,
        list_encoders,
        list_parts,
        list_recipes,
        list_tasks,
        load,
        pipeline,
        save,
    )
    from .engine.model import build as compose

__all__ = [
    "__version__",
    "compose",
    "list_backbones",
    "list_connectors",
    "list_encoders",
    "list_parts",
    "list_recipes",
    "list_tasks",
    "load",
    "pipeline",
    "push",
    "save",
]
__version__ = "0.1.0.dev0"

_LATER = {
    "compose": ("engine.model", "build"),
    "list_backbones": ("engine.inference", "list_backbones"),
    "list_connectors": ("engine.inference", "list_connectors"),
    "list_encoders": ("engine.inference", "list_encoders"),
    "list_parts": ("engine.inference", "list_parts"),
    "list_recipes": ("engine.inference", "list_recipes"),
    "list_tasks": ("engine.inference", "list_tasks"),
    "load": ("engine.inference", "load"),
    "pipeline": ("engine.inference", "pipeline"),
    "push": ("engine.checkpoint", "push"),
    "save": ("engine.inference", "save"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LATER[name]
    return getattr(import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
