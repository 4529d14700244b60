"""What is done to each block apart: activation checkpointing, by which it keeps its inputs alone
and runs again in the backward, and compilation."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ....backbones.base import Backbone
from ....backbones.stack import takes_context
from ....modalities.base import Encoder
from ....modalities.messages import did_you_mean
from ...utils import ConfigError


def checkpoint_blocks(modules: Iterable[nn.Module]) -> int:
    """Let the blocks of encoders and backbones keep their inputs alone while they train; return
    the number of blocks. Raise ConfigError if there is none.

    Values, gradients and random draws stay the same; so do the names in the state. Generation, and
    a block of which nothing is differentiated, are not affected.
    """
    blocks = _blocks(modules, "train.activation_checkpointing")
    if any(map(takes_context, blocks)):
        raise ConfigError(
            "train.activation_checkpointing: the cross-attention of the decoder reads what is no "
            "input of its block, and cannot run again in the backward; take it out"
        )
    for block in blocks:
        kind: Any = type(block)
        block.__class__ = _checkpointed(kind)  # a copy of it is one too
    return len(blocks)


def compile_blocks(modules: Iterable[nn.Module], backend: str | None = None) -> int:
    """Compile the blocks of encoders and backbones one by one by `torch.compile`; return their
    number. Equal blocks are compiled once. backend: one of `torch.compiler`, inductor by default.
    Raise ConfigError for an unknown one, and if there is no block."""
    backends = torch.compiler.list_backends(exclude_tags=())
    if backend is not None and backend not in backends:
        raise ConfigError(
            f"train.compile: there is no backend {backend!r}{did_you_mean(backend, backends)}"
        )
    blocks = _blocks(modules, "train.compile")
    for block in blocks:
        block.compile(backend=backend or "inductor")
    return len(blocks)


def _blocks(modules: Iterable[nn.Module], where: str) -> list[nn.Module]:
    blocks: dict[nn.Module, None] = {}
    for module in modules:
        if isinstance(module, (Encoder, Backbone)):
            blocks |= dict.fromkeys(module.blocks())
    if not blocks:
        raise ConfigError(
            f"{where}: no encoder and no backbone of the recipe names its blocks; take it out"
        )
    return list(blocks)


@functools.cache
def _checkpointed(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass of a block's class whose forward is run again in the backward."""

    def forward(self: nn.Module, *args: Any, **options: Any) -> Any:
        run = functools.partial(kind.forward, self)
        generates = options.get("past_key_values") is not None
        if generates or not torch.is_grad_enabled():
            return run(*args, **options)
        return checkpoint(run, *args, use_reentrant=False, **options)

    members: dict[str, Any] = {"forward": forward, "runs_again": True}
    members |= {"__doc__": kind.__doc__, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), members)
