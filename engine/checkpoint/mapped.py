"""Tensors that lie in files: the system reads a page when it is used, and may drop it again, so
that a file of any size takes no memory of the process."""

from __future__ import annotations

import json
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import _TYPES
from torch import Tensor


@dataclass(frozen=True)
class MappedTensor:
    """Where the values of a tensor lie in a file. offset: in bytes."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    def open(self) -> Tensor:
        """Return the tensor. What is written to it stays in this process."""
        count = math.prod(self.shape)
        if not count:
            return torch.empty(self.shape, dtype=self.dtype)
        start = self.offset - self.offset % mmap.ALLOCATIONGRANULARITY
        end = self.offset + count * self.dtype.itemsize
        with self.path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), end - start, access=mmap.ACCESS_COPY, offset=start)
        inside = self.offset - start
        if inside % self.dtype.itemsize:
            pages, inside = bytearray(pages[inside:]), 0  # type: ignore[assignment]
        values = torch.frombuffer(pages, dtype=self.dtype, count=count, offset=inside)
        return values.as_strided(self.shape, self.strides)


def map_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, which was found to be whole. What is written to
    them stays in this process."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        dtype: Any = _TYPES[entry["dtype"]]
        shape = tuple(entry["shape"])
        strides = torch.empty(shape, device="meta").stride()
        offset = 8 + length + entry["data_offsets"][0]
        tensors[name] = MappedTensor(path, dtype, shape, strides, offset).open()
    return tensors


def new_mapped(path: Path, like: Tensor) -> tuple[Tensor, MappedTensor]:
    """Return a tensor without values of a shape and type, whose memory is a new file, and the place
    of its values."""
    dense = torch.empty_like(like, device="meta")
    size = dense.numel() * dense.element_size()
    storage = torch.UntypedStorage.from_file(str(path), True, size)
    values: Any = torch.empty(0, dtype=dense.dtype)
    values.set_(storage, 0, dense.shape, dense.stride())
    return values, MappedTensor(path, dense.dtype, tuple(dense.shape), dense.stride())
