"""Shared helpers of the benchmarks: two clocks, interleaving, and a line about the machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Times(NamedTuple):
    """Seconds of a run: of the wall clock, and of this process's own work (`cpu`), which shows
    more where others use the machine too."""

    wall: float
    cpu: float

    def extended(self, base: Times, factor: float) -> Times:
        """With `factor` times as much of what goes beyond `base`."""
        pairs = zip(self, base, strict=True)
        return Times(*(least + factor * (whole - least) for whole, least in pairs))


def timed(work: Callable[[], object]) -> Times:
    """Return the seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Times(time.perf_counter() - wall, time.process_time() - cpu)


def interleaved_median(
    ways: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each, taken in turns there and back (ABCCBA), after one of each.

    clock: `time.process_time` leaves out what else the machine does.
    """
    seconds_of: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(rounds + 1):
        for name in list(ways)[:: 1 if index % 2 else -1]:
            start = clock()
            ways[name]()
            seconds_of[name].append(clock() - start)
    return {name: statistics.median(seconds[1:]) for name, seconds in seconds_of.items()}


def machine() -> str:
    """Return the processor, its cores, the threads in use, torch's version."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    threads = torch.get_num_threads()
    return f"{name}, {os.cpu_count()} cores, {threads} threads; torch {torch.__version__}"
