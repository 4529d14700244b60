"""Set up and tear down the distributed process group; sums over processes without a device."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import (
    KwargsHandler,
    broadcast_object_list,
    parse_flag_from_env,
    patch_environment,
)
from torch import Tensor

from .device import check_training_precision, pick
from .errors import ConfigError, RuntimeFailure

T = TypeVar("T")

LAUNCHED = "LOCAL_RANK"
"""A launcher of several processes sets it; each then takes the device of its number."""


def init_accelerator(
    device: str | torch.device | None = None,
    precision: str = "fp32",
    handlers: Sequence[KwargsHandler] = (),
) -> Accelerator:
    """Return an accelerator on the device that `pick` chooses, that moves nothing by itself.

    Of several processes each takes one device of that kind. Raise ConfigError where a device is
    named that several processes cannot share, or that cannot train in the precision.
    """
    if device is None and parse_flag_from_env("ACCELERATE_USE_CPU"):  # accelerate launch --cpu
        device = "cpu"
    chosen, several = pick(device), LAUNCHED in os.environ
    if several and chosen.index is not None:
        raise ConfigError(
            f"device: found {chosen}, but every process takes its own device; leave the "
            f"number out: {chosen.type}"
        )
    check_training_precision(precision, chosen)
    # accelerate remembers the first device and precision of a process.
    AcceleratorState._reset_state(reset_partial_state=True)
    device_context = contextlib.nullcontext() if several else _accelerate_device(chosen)
    with device_context:
        accelerator = Accelerator(
            mixed_precision={"fp32": "no"}.get(precision, precision),
            cpu=chosen.type == "cpu",
            device_placement=False,
            kwargs_handlers=list(handlers),
        )
    if accelerator.device.type != chosen.type:
        raise ConfigError(
            f"device: accelerate starts these processes on {accelerator.device.type}, found "
            f"{chosen.type}; leave the device out, or start one process"
        )
    atexit.unregister(destroy_process_group)
    atexit.register(destroy_process_group)
    return accelerator


def _accelerate_device(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """accelerate's own order of preference is another: inside, it takes this device."""
    return patch_environment(accelerate_torch_device=str(device))


def destroy_process_group() -> None:
    """End the process group, at exit: threads of it that outlive the interpreter may abort the
    process, and the work counts as failed."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        _patient.clear()
        torch.distributed.destroy_process_group()


def from_main(accelerator: Accelerator, compute: Callable[[], T]) -> T:
    """Return the result of the main process, or raise its ConfigError or RuntimeFailure, in every
    process; every process has to call it."""
    value: T | None = None
    error: ConfigError | RuntimeFailure | None = None
    if accelerator.is_main_process:
        try:
            value = compute()
        except (ConfigError, RuntimeFailure) as raised:
            error = raised
    if accelerator.num_processes > 1:
        value, error = broadcast_object_list([value, error])
    if error is not None:
        raise error
    return cast(T, value)


@contextlib.contextmanager
def main_first(accelerator: Accelerator) -> Iterator[None]:
    """The block in the main process, then in the others, which wait as long as it takes: for a
    download, or for a cache to be filled."""
    if accelerator.num_processes == 1:
        yield
        return
    patient = _patient_group()
    if not accelerator.is_main_process:
        torch.distributed.barrier(patient)
    yield
    if accelerator.is_main_process:
        torch.distributed.barrier(patient)


def gather(accelerator: Accelerator, value: T) -> list[T]:
    """Return the values of all processes, in order; every process has to call it, and waits for
    the slowest as long as it takes."""
    if accelerator.num_processes == 1:
        return [value]
    values: list[Any] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(values, value, _patient_group())
    return values


def _patient_group() -> Any:
    """Return a group of all processes that waits as long as it takes; one is made and kept for
    each process group."""
    world = torch.distributed.group.WORLD
    if _patient.get("world") is not world:
        group = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=30))
        _patient.update(world=world, group=group)
    return _patient["group"]


_patient: dict[str, Any] = {}


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
        result: list[int] = sums.tolist()
        return result


def whole_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with all shares of those that are sharded, on the CPU of the main process; the
    others get empty ones. Every process has to call it; tensors that are not sharded are not
    copied."""
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        whole[name] = tensor
        if _is_sharded(tensor):
            gathered = whole_tensor(tensor)
            is_main = torch.distributed.get_rank() == 0
            whole[name] = gathered.cpu() if is_main else gathered.new_empty(0)
    return whole


def whole_tensor(tensor: Tensor) -> Tensor:
    """Return a sharded tensor with all shares, for which every process has to call it; any other
    tensor itself."""
    shards: Any = tensor.detach()
    return shards.full_tensor() if _is_sharded(tensor) else tensor


def share_like(value: Tensor, target: Tensor) -> Tensor:
    """Return a whole tensor split as a sharded one of its shape is; else the tensor itself."""
    if not _is_sharded(target):
        return value
    from torch.distributed.tensor import distribute_tensor

    shards: Any = target
    value = value.to(target.device)
    return distribute_tensor(value, shards.device_mesh, shards.placements, src_data_rank=None)


def _is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor, without an import of its module."""
    return hasattr(tensor, "device_mesh")
