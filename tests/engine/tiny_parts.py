"""A stranger's encoder, in a file of its own that is no part of the package.

It has what training must get right: dropout, a batch norm, noise from numpy's generator. With
`TINY_FAULT=kill@5` in the environment something happens to the process in the fifth forward
of training: it is killed, interrupted, or its values stop being numbers.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sensorium.engine.training import Callback, Trainer
from sensorium.modalities.base import Encoder, Features, Processor, Sample

SIGNALS = {"kill": signal.SIGKILL, "int": signal.SIGINT, "term": signal.SIGTERM}
forwards = 0


def fault(tokens: Tensor) -> Tensor:
    """What `TINY_FAULT=what@forward` asks for; `group-int` is what a terminal's Ctrl-C does, and
    `rank1-term` happens to the second process alone."""
    global forwards
    forwards += 1
    what, _, when = os.environ.get("TINY_FAULT", "").partition("@")
    if not what or forwards != int(when):
        return tokens
    if what.startswith("rank1-"):
        if os.environ.get("RANK") != "1":
            return tokens
        what = what.removeprefix("rank1-")
    if what == "nan":
        return tokens * torch.nan
    number = SIGNALS[what.removeprefix("group-")]
    if what.startswith("group-"):
        os.killpg(os.getpgrp(), number)
    else:
        os.kill(os.getpid(), number)
    return tokens


@dataclass
class Grey(Processor):
    scale: float = 1.0

    def prepare(self, raw: Any) -> Sample:
        pixels = np.asarray(raw.convert("L").resize((8, 8)), dtype=np.float32) / 255
        return {"pixel_values": torch.from_numpy(pixels)[None] * self.scale}


class Block(nn.Module):
    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.map, self.dropout = nn.Linear(dim, dim), nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.dropout(torch.tanh(self.map(tokens)))


class Tiny(Encoder):
    """Patches of 4 px, a batch norm on request, two blocks with dropout, noise on request."""

    def __init__(
        self,
        *,
        dim: int = 8,
        dropout: float = 0.0,
        noise: float = 0.0,
        norm: bool = False,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.dim, self.noise = dim, noise
        self.processor = Grey(scale)
        self.patch = nn.Conv2d(1, dim, 4, 4)
        self.norm = nn.BatchNorm2d(dim) if norm else nn.Identity()
        self.layers = nn.ModuleList([Block(dim, dropout), Block(dim, dropout)])

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    def forward(self, pixel_values: Tensor) -> Features:
        tokens = self.norm(self.patch(pixel_values)).flatten(2).transpose(1, 2)
        if self.training:
            tokens = fault(tokens)
            if self.noise:
                tokens = tokens * (1 + self.noise * float(np.random.standard_normal()))
        for layer in self.layers:
            tokens = layer(tokens)
        return Features.dense(tokens, grid=(2, 2))


class AddMean(Callback):
    """Add a running mean of a weight to it: what is trained depends on this callback's state."""

    def __init__(self, *, rate: float = 0.5) -> None:
        self.rate, self.mean, self.steps = rate, torch.zeros(()), 0

    @torch.no_grad()
    def on_step_end(self, trainer: Trainer) -> None:
        weight = next(p for p in trainer.model.parameters() if p.requires_grad and p.ndim > 1)
        self.steps += 1
        self.mean = self.mean.lerp(weight.mean(), self.rate)
        weight.add_(self.mean + 0.001 * self.steps)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean, self.steps = state["mean"], state["steps"]


class StopAt(Callback):
    """End the training at a step."""

    def __init__(self, *, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer: Trainer) -> None:
        trainer.should_stop |= trainer.global_step == self.step
