"""Matrices in bfloat16: half the memory of the weights that no copy outside of them needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import nn


def matrices(model: nn.Module, without: Collection[nn.Module] = ()) -> Iterator[nn.Parameter]:
    """Yield the float32 parameters of two axes or more, for `lower`: vectors, such as those of
    norms, are small, and what reads them computes in float32. without: modules that stay."""
    left_out = {p for module in without for p in module.parameters()}
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.dtype == torch.float32 and parameter not in left_out:
            yield parameter


@torch.no_grad()
def lower(model: nn.Module, without: Collection[nn.Module] = ()) -> None:
    """Round the matrices of a model to bfloat16, in place."""
    for parameter in list(matrices(model, without)):
        parameter.data = parameter.data.to(torch.bfloat16)
