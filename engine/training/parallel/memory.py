"""The memory that a training step needs on each device, by arithmetic.

A step holds weights and optimizer states throughout. The activations grow until the end of the
forward; in the backward they give way to the gradients. So the peak is the larger of the two,
beside what is always there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...model import Model
from ...model.parameters import matrices
from ...recipe import OPTIMIZER_ARGUMENTS, Train, find
from ...recipe.validation import library_options
from ...utils import ConfigError
from .shards import shardable_blocks
from .strategy import whole_parts

SIDE = 64
"""Rows and columns of the matrix on which an optimizer's state is measured."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a step.

    weights: all of them. rest: those outside of blocks. block: of the largest block. blocks: their
    number. trained: those with a gradient. states: of the optimizer. activations: kept for the
    backward, of one process's batch. largest: of these, the largest tensor, whose gradient and
    product begin the backward. recomputed: kept by one block that runs again in the backward.
    halves: half of the matrices that can be in bfloat16. copies: of those that train, in float32.
    """

    weights: float
    rest: float
    block: float
    trained: float
    states: float
    blocks: int
    activations: float
    largest: float
    recomputed: float = 0.0
    halves: float = 0.0
    copies: float = 0.0

    def of_replicas(self) -> float:
        """Return the bytes on each device with `parallel: ddp`, or on a single one."""
        return self.weights + self.states + self._step(self.trained)

    def lowered(self) -> StepMemory:
        """Return the bytes with `weights_precision: bf16`. Activations are counted in float32."""
        weights, states = self.weights - self.halves, self.states + self.copies
        return dataclasses.replace(self, weights=weights, states=states, halves=0.0, copies=0.0)

    def of_shards(self, devices: int) -> float:
        """Return the bytes on each of several devices with `parallel: fsdp`: shares of everything,
        what lies outside of blocks in full, and two blocks, one of them with its gradient."""
        gathered = self.rest + 3 * self.block
        share = (self.weights + self.states) / devices
        return share + gathered + self._step(self.trained / devices)

    def _step(self, gradients: float) -> float:
        return max(self.activations + self.recomputed + 2 * self.largest, gradients)


def step_memory(model: Model, activations: float, largest: float) -> StepMemory:
    """Return the bytes of a step. The model may be on the meta device."""
    train = model.plan.recipe.train
    trained = [p for p in model.parameters() if p.requires_grad]
    blocks = [_bytes(block.parameters()) for block in shardable_blocks(model, ())]
    weights = _bytes(model.parameters())
    try:
        lowered = list(matrices(model, whole_parts(model)))
    except ConfigError:
        lowered = []
    memory = StepMemory(
        weights=weights + _bytes(model.buffers()),
        rest=weights - sum(blocks),
        block=max(blocks, default=0.0),
        trained=_bytes(trained),
        states=state_share(train) * _bytes(trained),
        blocks=len(blocks),
        activations=activations,
        largest=largest,
        halves=_bytes(lowered) / 2,
        copies=_bytes(p for p in lowered if p.requires_grad),
    )
    return memory.lowered() if train.weights_precision == "bf16" else memory


def state_share(train: Train) -> float:
    """Return the bytes of an optimizer's state for each byte of a matrix that it trains."""
    where, section = "train.optimizer", train.optimizer
    optimizer_class = find("optimizer", section.type, f"{where}.type")
    options = library_options(optimizer_class, section.options, where, OPTIMIZER_ARGUMENTS)
    matrix = nn.Parameter(torch.zeros(SIDE, SIDE))
    matrix.grad = torch.zeros(SIDE, SIDE)
    optimizer = optimizer_class([matrix], lr=0.0, **options)
    optimizer.step()
    states = optimizer.state_dict()["state"].get(0, {}).values()  # plain SGD has none
    return _bytes(value for value in states if isinstance(value, Tensor)) / _bytes([matrix])


def _bytes(tensors: Iterable[Tensor]) -> float:
    return float(sum(t.numel() * t.element_size() for t in tensors))
