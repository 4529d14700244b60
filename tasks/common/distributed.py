"""Collectives over the rows of all processes, with gradients.

The gradient of a gathered row is the sum of its gradients in all processes, so that the sum of all
processes' losses has, in each of them, the gradient that one process with all rows has.

Legend: `B` rows of this process, `N` rows of all, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed

_meetings: list[Callable[[], None]] = []


def set_meeting(meet: Callable[[], None] | None) -> None:
    """Set the function that is called before each collective of a task, and by `meet`: what else
    the processes wait for one another in has to be settled first."""
    _meetings[:] = [meet] if meet is not None else []


def meet() -> None:
    """Wait until all processes are here; without several processes that share a model, return at
    once. Every process has to call it before a collective that follows uses of the model."""
    for each in _meetings:
        each()


def local_shard(tensor: Tensor) -> Tensor:
    """Return the share of a sharded tensor that this process holds; any other tensor itself."""
    shards: Any = tensor
    return shards.to_local() if hasattr(tensor, "device_mesh") else tensor


def all_gather_with_grad(rows: Tensor) -> tuple[Tensor, int]:
    """Return the rows of all processes `[N, D]` in their order, and the index of the first row of
    this one. A collective: every process must call it; one without rows may pass any width."""
    if not distributed.is_available() or not distributed.is_initialized():
        return rows, 0
    meet()
    shapes = _collect(torch.tensor([rows.shape], device=rows.device)).tolist()
    counts, width = [count for count, _ in shapes], max(width for _, width in shapes)
    if rows.shape[1] != width:
        if len(rows):
            raise ValueError(f"rows of width {rows.shape[1]} here, of {width} elsewhere")
        rows = rows.new_zeros(0, width)
    gathered: Tensor = _Gather.apply(rows, counts)
    return gathered, sum(counts[: distributed.get_rank()])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        most = max(1, *counts)  # all processes send equally many rows
        padded = rows.new_zeros(most, *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = _collect(padded).split(most)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        meet()
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(grad)
        return grad.split(ctx.counts)[distributed.get_rank()], None


def _collect(rows: Tensor) -> Tensor:
    """Gather equally many rows of each process."""
    gathered = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)


def all_reduce_sum(values: Tensor) -> Tensor:
    """Return the sum over all processes; a collective."""
    if not distributed.is_available() or not distributed.is_initialized():
        return values
    meet()
    total = values.detach().clone()
    distributed.all_reduce(total)
    return total


def all_reduce_max(values: Tensor) -> Tensor:
    """Return the maximum over all processes; 0 if none has any value."""
    largest = values.max() if values.numel() else values.new_full((), -torch.inf)
    if distributed.is_available() and distributed.is_initialized():
        meet()
        distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return largest.nan_to_num(neginf=0.0)
