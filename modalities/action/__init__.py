"""Actions and states: reading, tokens, encoders, and a simulator's demonstrations."""

from importlib import import_module
from typing import Any

READ = "sensorium.modalities.action.read:read"
EXAMPLE = "sensorium.modalities.action.read:example"
PREVIEW = "sensorium.modalities.action.read:preview"

ENCODERS = {
    "state": "sensorium.modalities.action.state:State",
    "trajectory": "sensorium.modalities.action.trajectory:Trajectory",
}

AUGMENTS = {
    "action": "sensorium.modalities.action.processor:Noise",
}

SOURCES = {
    "frames": "sensorium.modalities.action.frames:Frames",
    "lerobot": "sensorium.modalities.action.lerobot:LeRobot",
    "metaworld": "sensorium.modalities.action.demonstrations:Demonstrations",
}

TOKENIZERS = {
    "bspline": "sensorium.modalities.action.bspline:BSplineTokenizer",
}

ENVS = {
    "metaworld": "sensorium.modalities.action.metaworld:make",
}
"""Family of environments -> `make(task, seed, cameras=(), size=128)`; others are gymnasium's."""


def __getattr__(name: str) -> Any:
    """The tokenizers' classes, imported when first asked for."""
    for path in TOKENIZERS.values():
        module, _, found = path.partition(":")
        if found == name:
            return getattr(import_module(module), found)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
