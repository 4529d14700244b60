"""Tables of which a step changes only the rows that have a gradient.

Momentum and weight decay also move rows without a gradient. With these hooks such rows, and their
part of the optimizer's state, stay bit for bit, as with lazy Adam of TensorFlow Addons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...utils import ConfigError


def leave_untouched_rows(optimizer: torch.optim.Optimizer, tables: Sequence[Tensor]) -> None:
    """Let each step of an optimizer leave the rows (vectors along the last axis) of some of its
    parameters alone whose gradient is zero. Raise ConfigError for an optimizer that packs its state
    (`packs_state`), whose rows cannot be put back."""
    if not tables:
        return
    if getattr(optimizer, "packs_state", False):
        raise ConfigError(
            f"train.optimizer.type: {type(optimizer).__name__} packs its state, of which the rows "
            "of a table (head: key_values) cannot be left alone; set adamw"
        )
    before: list[tuple[Tensor, Tensor, dict[Any, Tensor]]] = []

    def remember(*_: Any) -> None:
        before.clear()
        for table in tables:
            if table.grad is not None:
                rows = ~_local(table.grad).any(-1)
                state = {k: _local(v).clone() for k, v in _rowwise(optimizer, table).items()}
                before.append((rows, _local(table.detach()).clone(), state))

    def restore(*_: Any) -> None:
        changed = [table for table in tables if table.grad is not None]
        with torch.no_grad():
            for table, (rows, values, state) in zip(changed, before, strict=True):
                _local(table.detach())[rows] = values[rows]
                for name, after in _rowwise(optimizer, table).items():
                    # A state that the step created began at zero.
                    _local(after)[rows] = state[name][rows] if name in state else 0
        before.clear()

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(restore)


def _rowwise(optimizer: torch.optim.Optimizer, table: Tensor) -> dict[Any, Tensor]:
    """Return the tensors of a parameter's state that have its shape."""
    state = optimizer.state.get(table, {})
    return {k: v for k, v in state.items() if isinstance(v, Tensor) and v.shape == table.shape}


def _local(tensor: Tensor) -> Tensor:
    """Return the part of a sharded tensor that this process holds."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
