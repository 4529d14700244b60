"""The processes of one start (`torchrun`, `accelerate launch`): how they meet, how they part."""

from __future__ import annotations

import atexit
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import KwargsHandler


def meet(precision: str | None = None, handlers: Sequence[KwargsHandler] = ()) -> Accelerator:
    """An accelerator that leaves placement to us. precision: accelerate's name for it."""
    accelerator = Accelerator(
        mixed_precision=precision,
        cpu=not torch.cuda.is_available(),
        device_placement=False,
        kwargs_handlers=list(handlers),
    )
    atexit.unregister(part)
    atexit.register(part)
    return accelerator


def part() -> None:
    """End the group of processes, at exit: threads of it that outlive the interpreter may abort
    the process, and what was done counts as failed."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context in which products take a recipe's `train.precision`; fp32 changes nothing."""
    dtype = DTYPES.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
