"""Set up and tear down the distributed process group; sums over processes without a device."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import KwargsHandler


def init_accelerator(
    precision: str | None = None, handlers: Sequence[KwargsHandler] = ()
) -> Accelerator:
    """Return an accelerator that leaves placement to us. precision: accelerate's name for it."""
    accelerator = Accelerator(
        mixed_precision=precision,
        cpu=not torch.cuda.is_available(),
        device_placement=False,
        kwargs_handlers=list(handlers),
    )
    atexit.unregister(destroy_process_group)
    atexit.register(destroy_process_group)
    return accelerator


def destroy_process_group() -> None:
    """End the process group, at exit: threads of it that outlive the interpreter may abort the
    process, and what was done counts as failed."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class HostSum:
    """Sums of small integers over all processes, through the CPU: no process waits for its
    accelerator."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._several = accelerator.num_processes > 1
        self._group: Any = None
        if self._several and torch.distributed.get_backend() != "gloo":
            self._group = torch.distributed.new_group(backend="gloo")

    def __call__(self, *values: int) -> list[int]:
        """Return each value's sum; every process has to call it."""
        if not self._several:
            return list(values)
        sums = torch.tensor(values, dtype=torch.int64)
        torch.distributed.all_reduce(sums, group=self._group)
        found: list[int] = sums.tolist()
        return found


DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context in which products take a recipe's `train.precision`; fp32 changes nothing."""
    dtype = DTYPES.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
