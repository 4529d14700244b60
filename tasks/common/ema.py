"""An exponential moving average of a module's weights: the teacher of self-supervision.

Tarvainen & Valpola, "Mean teachers are better role models", 2017.
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .distributed import local_shard

M = TypeVar("M", bound=nn.Module)


def ema_copy(module: M) -> M:
    """Return a copy that does not train, for `ema_update`."""
    copied: M = copy.deepcopy(module)
    return copied.requires_grad_(False).eval()


@torch.no_grad()
def ema_update(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Set `average = decay * average + (1 - decay) * module`, parameter by parameter. Buffers
    (counts, running means) are copied."""
    averages = [local_shard(p) for p in average.parameters()]
    parameters = [local_shard(p) for p in module.parameters()]
    if averages:
        get_ema_multi_avg_fn(decay)(averages, parameters, 0)
    average_buffers, buffers = list(average.buffers()), list(module.buffers())
    if average_buffers:
        torch._foreach_copy_(average_buffers, buffers)


def cosine(begin: float, end: float, progress: float) -> float:
    """Return the value between `begin` and `end` along half a cosine; `progress` runs from 0 to
    1."""
    return end + (begin - end) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
