"""What kinds of checkpoints share: opened by transformers, their configurations as options."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor

from ....modalities.messages import quiet_loading
from ...model import Model, States
from ...utils import ConfigError

Json = dict[str, Any]


@dataclass(frozen=True)
class Imported:
    """recipe: its values. fill: copies weights into the composed model. states: of fitted parts."""

    recipe: Json
    fill: Callable[[Model], None] = lambda model: None
    states: States = field(default_factory=dict)


def opened(path: Path, *families: str) -> Any:
    """Return a checkpoint's model of one of some classes of transformers. Raise ConfigError for
    another one."""
    import transformers

    config = AutoConfig.from_pretrained(path)
    family = next(
        (f for f in families if type(config) is getattr(transformers, f).config_class), None
    )
    if family is None:
        named = config.architectures or [config.model_type]
        raise ConfigError(
            f"holds a {config.model_type} ({named[0]}), expected {' or '.join(families)}"
        )
    with quiet_loading():
        model, report = getattr(transformers, family).from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    if missing := sorted(report["missing_keys"]):
        raise ConfigError(f"lacks {missing[0]} (and {len(missing) - 1} more) of {family}")
    return model.eval()


def plain(config: Any) -> Json:
    values: Json = json.loads(config.to_json_string(use_diff=False))
    return {**values, "model_type": config.model_type}


def image_processor(path: Path) -> Json:
    processor = AutoImageProcessor.from_pretrained(path)
    values: Json = json.loads(processor.to_json_string())
    return {**values, "image_processor_type": type(processor).__name__}


def tokenizer_of(path: Path) -> Json:
    return {"type": "pretrained", "name": str(path)}


def copy_weights(target: nn.Module, source: nn.Module) -> None:
    """Copy the weights of a module; the source may hold more."""
    state = source.state_dict()
    target.load_state_dict({name: state[name] for name in target.state_dict()})


def copy_linear(target: Any, source: Any) -> None:
    target.weight.copy_(source.weight)
    if target.bias is not None:
        target.bias.copy_(torch.zeros_like(target.bias) if source.bias is None else source.bias)
