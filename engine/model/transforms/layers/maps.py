"""Linear maps of a layer found by their shape and name, and cut along either side.

A linear map is an `nn.Linear` or transformers' `Conv1D`, whose weight is transposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def linear_maps(module: nn.Module) -> dict[str, Any]:
    """Return the linear maps in a module, by their path."""
    return {
        name: inner
        for name, inner in module.named_modules()
        if isinstance(inner, (nn.Linear, Conv1D)) and getattr(inner, "weight", None) is not None
    }


def in_features(linear: nn.Module) -> int:
    return _side(linear, inputs=True)


def out_features(linear: nn.Module) -> int:
    return _side(linear, inputs=False)


def _side(linear: Any, inputs: bool) -> int:
    rows, columns = linear.weight.shape
    return int(columns if inputs == isinstance(linear, nn.Linear) else rows)


def _axis(linear: nn.Module, inputs: bool) -> int:
    return 1 if inputs == isinstance(linear, nn.Linear) else 0


def rows_of(linear: Any) -> Tensor:
    """Return the weight as `[out, in]`."""
    weight: Tensor = linear.weight if isinstance(linear, nn.Linear) else linear.weight.T
    return weight


def keep_inputs(linear: Any, indices: Sequence[int]) -> None:
    """Keep some inputs of a linear map."""
    linear.weight = _chosen(linear.weight, indices, _axis(linear, True))
    for name in ("in_features", "nx"):
        if hasattr(linear, name):
            setattr(linear, name, len(indices))


def keep_outputs(linear: Any, indices: Sequence[int]) -> None:
    """Keep some outputs of a linear map."""
    linear.weight = _chosen(linear.weight, indices, _axis(linear, False))
    if linear.bias is not None:
        linear.bias = _chosen(linear.bias, indices, 0)
    for name in ("out_features", "nf"):
        if hasattr(linear, name):
            setattr(linear, name, len(indices))


def _chosen(weight: Tensor, indices: Sequence[int], axis: int) -> nn.Parameter:
    index = torch.tensor(list(indices), device=weight.device)
    return nn.Parameter(weight.detach().index_select(axis, index), weight.requires_grad)


def is_attention(path: str) -> bool:
    """Return whether a path leads into an attention."""
    return any("attn" in name.lower() or "attention" in name.lower() for name in path.split("."))


def set_counts(modules: Sequence[Any], names: Sequence[str], before: int, after: int) -> None:
    """Set attributes and fields of these names that hold a number to another one."""
    for module in modules:
        for name in names:
            value = getattr(module, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and value == before:
                setattr(module, name, after)
