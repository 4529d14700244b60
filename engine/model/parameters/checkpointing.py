"""Activation checkpointing: a block keeps its inputs alone, and runs again in the backward."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ....backbones.base import Backbone
from ....modalities.base import Encoder
from ...utils import ConfigError


def checkpoint_blocks(modules: Iterable[nn.Module]) -> int:
    """Let the blocks of encoders and backbones keep their inputs alone while they train; return
    the number of blocks. Raise ConfigError if there is none.

    Values, gradients and random draws stay the same; so do the names in the state. Generation, and
    a block of which nothing is differentiated, are not affected.
    """
    blocks: dict[int, nn.Module] = {}
    for module in modules:
        if isinstance(module, (Encoder, Backbone)):
            blocks |= {id(block): block for block in module.blocks()}
    for block in blocks.values():
        kind: Any = type(block)
        block.__class__ = _checkpointed(kind)  # a copy of it is one too
    if not blocks:
        raise ConfigError(
            "train.activation_checkpointing: no encoder and no backbone of the recipe names its "
            "blocks; take it out"
        )
    return len(blocks)


@functools.cache
def _checkpointed(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass of a block's class whose forward is run again in the backward."""

    def forward(self: nn.Module, *args: Any, **options: Any) -> Any:
        run = functools.partial(kind.forward, self)
        generates = options.get("past_key_values") is not None
        if generates or not torch.is_grad_enabled():
            return run(*args, **options)
        return checkpoint(run, *args, use_reentrant=False, **options)

    members = {"forward": forward, "__doc__": kind.__doc__, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), members)
