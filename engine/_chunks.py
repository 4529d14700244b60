"""A stream over chunks of a batch's rows: batches larger than memory, with the same gradients.

Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache),
2021: only the features are kept; a chunk's activations are computed again when its gradient
is known, from the same random numbers.

Legend: `B` rows, `T` tokens, `D` width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..modalities.base import Features

Given = dict[str, Tensor] | Features


def in_chunks(
    part: nn.Module,
    run: Callable[[Given, Mapping[str, Any]], Features],
    given: Given,
    options: Mapping[str, Any],
    *,
    rows: int,
) -> Features:
    """`run(given, options)`, `rows` rows at a time. Raises ValueError where a batch norm trains:
    its statistics would be those of a chunk, and would be counted twice."""
    if torch.is_grad_enabled() and any(
        isinstance(m, _BatchNorm) and m.training for m in part.modules()
    ):
        raise ValueError(
            "chunk: the stream has batch norms that train, whose statistics would be those of "
            "a chunk; take an encoder without, or leave chunk out"
        )
    total = len(given.tokens) if isinstance(given, Features) else _rows(given)
    parts = [_rows_of(given, slice(i, i + rows)) for i in range(0, total, rows)]
    if len(parts) == 1:
        return run(given, options)
    return _joined([checkpoint(run, part, options, use_reentrant=False) for part in parts])


def _rows(batch: dict[str, Tensor]) -> int:
    counts = {name: len(tensor) for name, tensor in batch.items()}
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"chunk: a batch has no common number of rows ({listed}); leave chunk out")
    return next(iter(counts.values()))


def _rows_of(given: Given, rows: slice) -> Given:
    if isinstance(given, Features):
        return _cut(given, rows)
    return {name: tensor[rows] for name, tensor in given.items()}


def _cut(features: Features, rows: slice) -> Features:
    tensors = {name: tensor[rows] for name, tensor in _tensors(features).items()}
    return features.replace(**tensors, layers=tuple(_cut(f, rows) for f in features.layers))


def _joined(parts: Sequence[Features]) -> Features:
    """Features of all rows; chunks of one batch have one length and one grid."""
    every = [_tensors(part) for part in parts]
    whole = {name: torch.cat([tensors[name] for tensors in every]) for name in every[0]}
    layers = zip(*(part.layers for part in parts), strict=True)
    return parts[0].replace(**whole, layers=tuple(_joined(layer) for layer in layers))


def _tensors(features: Features) -> dict[str, Tensor]:
    """The fields that have a row for each row of the batch."""
    fields = {f.name: getattr(features, f.name) for f in dataclasses.fields(features)}
    return {name: value for name, value in fields.items() if isinstance(value, Tensor)}
