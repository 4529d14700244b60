"""Robot actions and states: reading, tokenizers, encoders, demonstrations and a simulator."""

from importlib import import_module
from typing import Any

from ..modality import Modality

ACTION = Modality(
    read="sensorium.modalities.action.read:read",
    example="sensorium.modalities.action.read:example",
    preview="sensorium.modalities.action.read:preview",
    encoders={
        "state": "sensorium.modalities.action.encoders.state:State",
        "trajectory": "sensorium.modalities.action.encoders.trajectory:TrajectoryEncoder",
    },
    decoders={
        "diffusion": "sensorium.modalities.action.decoders.heads:DiffusionHead",
        "flow": "sensorium.modalities.action.decoders.heads:FlowHead",
    },
    augments={
        "action": "sensorium.modalities.action.augment:Noise",
    },
    sources={
        "frames": "sensorium.modalities.action.datasets.frames:Frames",
        "lerobot": "sensorium.modalities.action.datasets.lerobot:LeRobot",
        "metaworld": "sensorium.modalities.action.metaworld.demonstrations:Demonstrations",
        "robomimic": "sensorium.modalities.action.datasets.robomimic:Robomimic",
    },
    tokenizers={
        "bins": "sensorium.modalities.action.tokenizers.bins:BinTokenizer",
        "bspline": "sensorium.modalities.action.tokenizers.bspline.tokenizer:BSplineTokenizer",
        "fast": "sensorium.modalities.action.tokenizers.fast:FastTokenizer",
    },
    envs={
        "metaworld": "sensorium.modalities.action.metaworld.env:MetaWorld",
    },
)


def __getattr__(name: str) -> Any:
    """Return a tokenizer's class, imported when first used."""
    for path in ACTION.tokenizers.values():
        module, _, attribute = path.partition(":")
        if attribute == name:
            return getattr(import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
