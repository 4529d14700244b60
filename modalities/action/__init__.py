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
    "bins": "sensorium.modalities.action.bins:BinTokenizer",
    "bspline": "sensorium.modalities.action.bspline:BSplineTokenizer",
    "fast": "sensorium.modalities.action.fast:FastTokenizer",
}

ENVS = {
    "metaworld": "sensorium.modalities.action.metaworld:make",
}
"""Family of environments -> `make(task, seed, cameras=(), size=128)`; others are gymnasium's."""

EXPERTS = {
    "metaworld": "sensorium.modalities.action.metaworld:expert",
}
"""Family of environments -> `expert(task)`, a controller that its package brings."""

WORDS = {
    "metaworld": "sensorium.modalities.action.metaworld:told",
}
"""Family of environments -> `told(task, seed)`, what a robot is told to do in an episode."""


def __getattr__(name: str) -> Any:
    """The tokenizers' classes, imported when first asked for."""
    for path in TOKENIZERS.values():
        module, _, found = path.partition(":")
        if found == name:
            return getattr(import_module(module), found)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
