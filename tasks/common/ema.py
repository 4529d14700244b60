"""A moving average of a module's weights: the teacher of self-supervision.

Tarvainen & Valpola, "Mean teachers are better role models", 2017.
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def averaged(module: M) -> M:
    """A copy that does not train, for `follow`."""
    found: M = copy.deepcopy(module)
    return found.requires_grad_(False).eval()


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, momentum: float) -> None:
    """`average = momentum * average + (1 - momentum) * module`; counts and other integers, and
    what a module keeps beside its parameters, are taken as they are."""
    for old, new in zip(average.parameters(), module.parameters(), strict=True):
        old.lerp_(new.detach(), 1 - momentum)
    for kept, now in zip(average.buffers(), module.buffers(), strict=True):
        kept.copy_(now)


def cosine(begin: float, end: float, done: float) -> float:
    """From `begin` to `end` along half a cosine; `done` from 0 to 1."""
    return end + (begin - end) * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0))) / 2
