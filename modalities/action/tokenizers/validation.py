"""Validation of tokenizers' inputs: chunks to encode, ids to decode, rows to fit.

Legend: `B` chunks, `steps` samples, `dof` numbers of an action, `L` tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Tokens = Tensor | list[Tensor]
"""Tokens of a batch, or one tensor a chunk."""

BLOCK = 1024
"""Chunks that are fitted at a time."""


def require_fitted(dof: int | None) -> int:
    """Return the fitted `dof`. Raise ValueError before the fit."""
    if dof is None:
        raise ValueError("action tokenizer: used before fit; fit it, or load a saved one")
    return dof


def same_dof(dof: int | None, fitted: int) -> int:
    """Raise ValueError if a saved tokenizer is for another number of joints."""
    if dof not in (None, fitted):
        raise ValueError(f"dof: the saved tokenizer has {fitted}, these options use {dof}")
    return fitted


def joints(dof: int | None) -> int | None:
    """Return the option `dof`. Raise ValueError if it is below one."""
    if dof is not None and dof < 1:
        raise ValueError(f"dof: found {dof}, expected at least 1; leave it out to take the data's")
    return dof


def vocabulary(size: int) -> int:
    """Return the number of bins. Raise ValueError for fewer than two."""
    if size < 2:
        raise ValueError(f"vocab: found {size}, expected at least 2 bins")
    return size


def at_least_zero(option: str, value: float) -> float:
    """Return a number. Raise ValueError if it is negative."""
    if not value >= 0:
        raise ValueError(f"{option}: found {value}, expected 0 or more")
    return value


def quantiles(pair: Sequence[float]) -> tuple[float, float]:
    """Return the lower and the upper quantile. Raise ValueError for an invalid pair."""
    low, high = pair
    if not 0 <= low < high <= 1:
        raise ValueError(f"quantiles: found {low} and {high}, expected 0 <= lower < upper <= 1")
    return low, high


def chunks(
    actions: Tensor, dof: int | None, padding: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return `[B, steps, dof]` floats, zero where padded, and `real [B, steps]` if any is
    padded."""
    tensor = torch.as_tensor(actions)
    if tensor.ndim != 3 or tensor.shape[2] != require_fitted(dof):
        raise ValueError(
            f"actions: found chunks {tuple(tensor.shape)}, expected [B, steps, {dof}]: "
            f"the tokenizer was fitted on {dof} joints"
        )
    values = tensor if tensor.dtype == torch.float64 else tensor.float()
    if padding is None:
        return values, None
    padded = torch.as_tensor(padding, device=values.device).bool()
    if padded.shape != values.shape[:2]:
        raise ValueError(
            f"padding: found {tuple(padded.shape)} for chunks {tuple(values.shape)}, "
            f"expected {tuple(values.shape[:2])}"
        )
    if not padded.any():
        return values, None
    if padded.all(1).any():
        where = int(padded.all(1).nonzero()[0])
        raise ValueError(f"padding: chunk {where} has no real sample; leave it out")
    return values.masked_fill(padded[..., None], 0.0), ~padded


def refuse_infinite(values: Tensor) -> None:
    """Raise ValueError that names the first number of `[B, steps, dof]` that is not finite."""
    wrong = (~torch.isfinite(values)).nonzero()
    if len(wrong):
        chunk, step, joint = wrong[0].tolist()
        raise ValueError(
            f"actions: chunk {chunk} has {values[chunk, step, joint].item()} at step {step}, "
            f"joint {joint}; expected finite numbers: leave the chunk out, or mark it as padding"
        )


def forward_fill(values: Tensor, real: Tensor | None) -> Tensor:
    """Return `[B, steps, ...]` with each padded sample replaced by the last real one before it,
    else the first."""
    if real is None:
        return values
    index = torch.arange(real.shape[1], device=real.device)
    last = torch.where(real, index, -1).cummax(1).values
    last = torch.where(last < 0, real.to(torch.uint8).argmax(1, keepdim=True), last)
    return values.gather(1, last[..., None].expand(-1, -1, values.shape[2]))


def ids(tokens: Tokens, length: int, size: int, grid: tuple[int, int] | None) -> Tensor:
    """Return `[B, L]` long as `flat`. Raise ValueError for another shape or an id out of range."""
    flat_ids = flat(tokens, length, grid, "ids")
    if flat_ids.is_floating_point() or flat_ids.dtype == torch.bool:
        raise ValueError(f"ids: found {flat_ids.dtype}, expected whole numbers below {size}")
    if flat_ids.numel():
        low, high = (int(end) for end in flat_ids.aminmax())
        if low < 0 or high >= size:
            raise ValueError(
                f"ids: found {low if low < 0 else high}, expected ids in [0, {size}); restrict "
                "the logits to the action ids"
            )
    return flat_ids


def flat(tokens: Tokens, length: int, grid: tuple[int, int] | None, label: str) -> Tensor:
    """Return `[B, L]` from `[B, L]`, a list of `[L]`, or `[B, N, dof]` if all joints have `N`
    tokens."""
    if isinstance(tokens, list) and len({len(row) for row in tokens}) > 1:
        raise ValueError(f"{label}: found rows of several lengths, expected {length} in each")
    if isinstance(tokens, list):
        tokens = torch.stack(tokens) if tokens else torch.zeros(0, length, dtype=torch.long)
    tensor = torch.as_tensor(tokens)
    if tensor.ndim == 3 and tuple(tensor.shape[1:]) == grid:
        tensor = tensor.flatten(1)
    if tensor.ndim != 2 or tensor.shape[1] != length:
        other = f" or [B, {grid[0]}, {grid[1]}]" if grid else ""
        raise ValueError(f"{label}: found {tuple(tensor.shape)}, expected [B, {length}]{other}")
    return tensor


def iter_blocks(rows: Iterable[Any], dof: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the input of `fit` in blocks of chunks of one length, read once.

    Yields `values [b, steps, dof]` float64, zero where padded, and `real [b, steps]` bool. Chunks
    without a real sample are left out. Raise ValueError for a value that is not finite, another
    dof, or no chunk at all.
    """
    group: list[tuple[np.ndarray, np.ndarray]] = []
    count, blank = 0, 0
    for count, row in enumerate(rows, start=1):
        values, real = _chunk(row, count - 1, dof)
        dof = values.shape[1]
        if not real.any():
            blank += 1
            continue
        if group and (len(values) != len(group[0][0]) or len(group) == BLOCK):
            yield _stacked(group)
            group = []
        group.append((values, real))
    if count == blank:
        problem = "every chunk is padding alone" if count else "there is no chunk of actions"
        raise ValueError(f"action tokenizer: {problem}; give data to fit on")
    yield _stacked(group)


def _chunk(row: Any, index: int, dof: int | None) -> tuple[np.ndarray, np.ndarray]:
    chunk, padding = row if isinstance(row, tuple) else (row, None)
    values = _array(chunk, index)
    if values.ndim != 2 or not len(values) or dof not in (None, values.shape[1]):
        raise ValueError(
            f"actions: chunk {index} is {values.shape}, expected [steps, {dof or 'dof'}]"
        )
    real = np.ones(len(values), bool) if padding is None else ~np.array(padding, bool)
    if real.shape != (len(values),):
        raise ValueError(
            f"padding: chunk {index} has {real.shape} for {len(values)} steps; expected one a step"
        )
    values = np.where(real[:, None], values, 0.0)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        step, joint = wrong[0]
        raise ValueError(
            f"actions: chunk {index} has {values[step, joint]} at step {step}, joint {joint}; "
            "expected finite numbers: leave the chunk out, or mark it as padding"
        )
    return values, real


def _array(chunk: Any, index: int) -> np.ndarray:
    if isinstance(chunk, Tensor):
        return chunk.detach().double().cpu().numpy()
    try:
        return np.asarray(chunk, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"actions: chunk {index} is no array of numbers ({error}); expected [steps, dof]"
        ) from error


def _stacked(group: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([values for values, _ in group]), np.stack([real for _, real in group])
