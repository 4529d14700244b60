"""What the cache keeps of a batch: `Features` and samples, row by row, as numpy arrays.

A record of features holds `tokens [T, D]` without padding and, where there are any,
`pooled [D]`, `affine [4, 4]`, `grid`, `step`, `origin`; hidden layers under `layers.0.`,
`layers.1.`, ... The round trip is exact, except for padding that no sample of the new batch
needs. Volumes are padded at the far ends of their axes: where that leaves holes among a
sample's tokens the record has a `mask [T]` and all tokens of the smallest grid that holds
real tokens. Legend: `B` batch, `T` tokens, `D` width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...modalities.base import Features, Sample
from .shard import BF16, Record
from .store import CONTENT
from .volume_padding import crop_to_content, pad_to_common_grid

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def to_array(tensor: Tensor) -> np.ndarray:
    """Return the tensor's values; bfloat16 as its bits, under the dtype `BF16`."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(BF16)
    return tensor.numpy()


def to_tensor(array: np.ndarray) -> Tensor:
    """Return a new tensor (not a view) with the array's values."""
    if array.dtype == BF16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def sample_to_record(sample: Sample) -> Record:
    return {name: to_array(tensor) for name, tensor in sample.items()}


def record_to_sample(record: Record) -> Sample:
    return {name: to_tensor(array) for name, array in record.items() if name != CONTENT}


def to_records(features: Features, precision: str | None = None) -> list[Record]:
    """Return one record a sample. precision: `float32 | float16 | bfloat16` for tokens and pooled,
    None for the encoder's own dtype. Raise ValueError for a mask with holes and no grid."""
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"cache: precision is {precision!r}, expected one of {[*PRECISIONS]}")
    dtype = features.tokens.dtype if precision is None else PRECISIONS[precision]
    lengths = features.lengths.tolist()
    positions = torch.arange(features.tokens.shape[1], device=features.mask.device)
    holes = (features.mask != (positions < features.lengths[:, None])).any(1).tolist()
    if any(holes) and (features.grid is None or len(features.grid) == 1):
        raise ValueError("cache: a mask has holes; Features are padded on the right")
    tokens = to_array(features.tokens.to(dtype))
    records: list[Record] = [{"tokens": tokens[i, :n]} for i, n in enumerate(lengths)]
    for i in range(len(records)) if any(holes) else ():
        records[i] = crop_to_content(tokens[i], to_array(features.mask[i]), features.grid or ())
    for i, record in enumerate(records):
        if features.pooled is not None:
            record["pooled"] = to_array(features.pooled[i].to(dtype))
        for name in ("positions", "codes"):
            if (value := getattr(features, name)) is None:
                continue
            if any(holes):
                raise ValueError(f"cache: features whose mask has holes cannot have {name}")
            record[name] = to_array(value[i, : lengths[i]])
        if features.affine is not None:
            record["affine"] = to_array(features.affine[i])
        if features.grid is not None:
            # Along one axis the grid is the length, and a shorter sample has its own.
            grid = features.grid if len(features.grid) > 1 else (lengths[i],)
            record.setdefault("grid", np.array(grid, np.int64))
        if features.spacing is not None:
            record["spacing"] = np.array(features.spacing, np.float64)
        if features.origin is not None:
            record["origin"] = np.array(features.origin, np.float64)
    for number, layer in enumerate(features.hidden_states):
        for record, inner in zip(records, to_records(layer, precision), strict=True):
            record.update(
                {f"hidden_states.{number}.{name}": array for name, array in inner.items()}
            )
    return records


def from_records(records: Sequence[Record]) -> Features:
    """Return a batch, padded on the right with zeros; volumes at the far ends of their axes. Where
    other grids (steps, origins) disagree there is none. Raise ValueError for records of different
    widths, dtypes or fields."""
    records = pad_to_common_grid(records)
    grid = _grid(records)
    tokens = [record["tokens"] for record in records]
    longest = max(len(t) for t in tokens)
    long = math.prod(grid) if grid is not None and len(grid) > 1 else longest
    if grid is not None and len(grid) == 1:
        grid = (long,)
    lengths = torch.tensor([len(t) for t in tokens])
    pooled, affine = _stack(records, "pooled"), _stack(records, "affine")
    mixed_grids = grid is None and any("grid" in record for record in records)
    layers: list[Features] = []
    while f"hidden_states.{len(layers)}.tokens" in records[0]:
        layers.append(
            from_records([_inner(record, f"hidden_states.{len(layers)}.") for record in records])
        )
    mask = torch.arange(long) < lengths[:, None]
    for row, record in zip(mask, records, strict=True):
        if "mask" in record:
            row[:] = to_tensor(record["mask"])
    return Features(
        _pad(tokens, long),
        mask,
        grid,
        None if mixed_grids else _agreed(records, "spacing"),
        None if mixed_grids else _agreed(records, "origin"),
        affine,
        pooled,
        tuple(layers),
        _ragged(records, "positions", long),
        _ragged(records, "codes", long),
    )


def _inner(record: Record, prefix: str) -> Record:
    return {n.removeprefix(prefix): a for n, a in record.items() if n.startswith(prefix)}


def _grid(records: Sequence[Record]) -> tuple[int, ...] | None:
    grids = [tuple(r["grid"].tolist()) if "grid" in r else None for r in records]
    if all(grid is not None and len(grid) == 1 for grid in grids):
        return grids[0]  # frames: the longest sample decides
    return grids[0] if len(set(grids)) == 1 else None


def _agreed(records: Sequence[Record], name: str) -> tuple[float, ...] | None:
    values = {tuple(r[name].tolist()) if name in r else None for r in records}
    return values.pop() if len(values) == 1 else None


def _stack(records: Sequence[Record], name: str) -> Tensor | None:
    arrays = [record[name] for record in records if name in record]
    if arrays and len(arrays) != len(records):
        raise ValueError(f"cache: {len(arrays)} of {len(records)} records have {name!r}")
    return _pad([array[None] for array in arrays], 1)[:, 0] if arrays else None


def _ragged(records: Sequence[Record], name: str, length: int) -> Tensor | None:
    arrays = [record[name] for record in records if name in record]
    if arrays and len(arrays) != len(records):
        raise ValueError(f"cache: {len(arrays)} of {len(records)} records have {name!r}")
    return _pad(arrays, length) if arrays else None


def _pad(arrays: Sequence[np.ndarray], length: int) -> Tensor:
    """Arrays `[T_i, ...]` -> `[B, length, ...]`; one copy, straight from the memory maps."""
    dtype, shape = arrays[0].dtype, arrays[0].shape[1:]
    for array in arrays:
        if array.dtype != dtype or array.shape[1:] != shape:
            difference = f"{dtype} {shape} and {array.dtype} {array.shape[1:]}"
            raise ValueError(f"cache: records of one batch differ: {difference}")
    bits = np.dtype(np.int16) if dtype == BF16 else dtype
    if all(len(array) == length for array in arrays):
        out = np.concatenate([a.view(bits) for a in arrays]).reshape(len(arrays), length, *shape)
    else:
        out = np.zeros((len(arrays), length, *shape), bits)
        for target, array in zip(out, arrays, strict=True):
            target[: len(array)] = array.view(bits)
    tensor = torch.from_numpy(out)
    return tensor.view(torch.bfloat16) if dtype == BF16 else tensor
