"""A trace of one step by torch's profiler."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from torch.profiler import profile

from ...utils import atomic_path, make_folder

PROFILE = "profile"
"""The folder of a run that holds traces."""


@contextlib.contextmanager
def profiled_step(folder: Path, step: int, rank: int) -> Iterator[None]:
    """Write a trace of the block, with shapes and memory, into a run's folder."""
    make_folder(folder / PROFILE)
    with profile(record_shapes=True, profile_memory=True) as profiler:
        yield
    with atomic_path(folder / PROFILE / f"step-{step}-rank-{rank}.json") as path:
        profiler.export_chrome_trace(str(path))
