"""A model that is larger than a device: each process holds a share of every parameter (FSDP2).

The units that are gathered together are the `blocks()` of encoders and backbones, and the rest of
the model. Parameters without an axis cannot be split: each process holds them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.utils import _pytree

from ....modalities.base import Decoder, Encoder, Loss
from ....tasks.common import local_shard, set_meeting
from ...checkpoint import fingerprints
from ...model import Model
from ...utils import HostSum
from .order import CollectiveOrder
from .replicas import squared_norm
from .unit import ShardedUnit

if Loss not in _pytree.SUPPORTED_NODES:
    # torch looks for the tensors of an output whose gradient begins a backward.
    _pytree.register_dataclass(Loss)

BUCKET = 2**28
"""Bytes of buffers that are sent at once."""


class Shards:
    """A model of which each process holds a share; one block at a time is whole."""

    def __init__(self, model: Model, accelerator: Accelerator, timeout: timedelta) -> None:
        self.model, self.accelerator = model, accelerator
        self.net: Any = model
        self.order = CollectiveOrder(timeout)
        self.units: list[ShardedUnit] = []
        self._whole: list[nn.Parameter] = []
        self._unused: tuple[str, ...] = ()
        self._sum = HostSum(accelerator)

    def place(self, served: Collection[str]) -> None:
        """Shard the model, which lies on the CPU, and move the shares to the device. served:
        streams whose encoder is not run; it stays where it is."""
        model, device = self.model, self.accelerator.device
        model.fingerprints = fingerprints(model) if self.accelerator.is_main_process else {}
        self._unused = tuple(f"streams.{name}.encoder." for name in served)
        unused = {p for name in served for p in model.stream(name).encoder.parameters()}
        self._whole = [p for p in model.parameters() if p.ndim == 0 and p not in unused]
        for parameter in self._whole:
            parameter.data = parameter.data.to(device)
        ignored = {*unused, *self._whole}
        _make_contiguous(p for p in model.parameters() if p not in ignored)
        mesh = init_device_mesh(device.type, (self.accelerator.num_processes,))
        modules = [*shardable_blocks(model, ignored), model]
        self.units = [ShardedUnit(module, self.order, mesh, ignored) for module in modules]
        self.root.state._lazy_init()
        for unit in self.units:
            unit.begin()
        model.waits_for_gradients = False
        set_meeting(self.order.meet)

    @property
    def root(self) -> ShardedUnit:
        return self.units[-1]

    def wrap(self, served: Collection[str]) -> None:
        """The model itself is `net`: torch has changed it in place."""

    @torch.no_grad()
    def before_forward(self) -> None:
        """Called before each forward of `net`: give all processes the buffers of the first."""
        buffers = [b for n, b in self.model.named_buffers() if not n.startswith(self._unused)]
        if buffers:
            together: Any = distributed
            together._broadcast_coalesced(distributed.group.WORLD, buffers, BUCKET, 0)

    def grad_sync(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Return the context of a forward or backward: gradients are reduced block by block."""
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss; a process whose rows could not be read has none."""
        if loss.requires_grad:
            self.accelerator.backward(loss)
        self.order.meet()
        for unit in self.units:
            unit.end()

    @torch.no_grad()
    def gradients(self) -> list[Tensor]:
        """Return the gradients of a step that this process holds, averaged over the processes; of
        a parameter that no process has learned there is none."""
        flags = [int(i in u.learned) for u in self.units for i in range(len(u.trained))]
        own = [p for p in self._whole if p.requires_grad]
        learned = iter(self._sum(*flags, *(int(p.grad is not None) for p in own)))
        grads: list[Tensor] = []
        for unit in self.units:
            for record in unit.trained:
                if not next(learned):
                    record.sharded_param.grad = None
                elif record.sharded_param.grad is not None:
                    grads.append(local_shard(record.sharded_param.grad))
            unit.learned.clear()
        for parameter in own:
            if next(learned):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                distributed.all_reduce(parameter.grad)
                grads.append(parameter.grad.div_(self.accelerator.num_processes))
        return grads

    def norm(self, grads: list[Tensor]) -> Tensor:
        """Return the norm of all gradients of the model, of which this process holds a share."""
        split, whole = [g for g in grads if g.ndim], [g for g in grads if not g.ndim]
        squares = squared_norm(split, self.accelerator.device)
        distributed.all_reduce(squares)
        return (squares + squared_norm(whole, self.accelerator.device)).sqrt()

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """A context in which any method of the model may be called by every process, and as often
        as it needs: blocks are gathered when they run, the rest is whole until the end."""
        self.root.module.unshard()
        yield
        self.order.meet()
        for unit in self.units:
            unit.end()


def shardable_blocks(model: nn.Module, ignored: Collection[nn.Parameter]) -> list[nn.Module]:
    """Return the blocks of encoders and decoders that can be gathered alone, the innermost first:
    no parameter of theirs lies in another block, or outside, as well."""
    owners: dict[nn.Parameter, set[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, set()).add(module)
    blocks: dict[nn.Module, None] = {}
    for module in model.modules():
        if isinstance(module, (Encoder, Decoder)):
            blocks |= dict.fromkeys(module.blocks())
    units = []
    for module in reversed([m for m in model.modules() if m in blocks]):
        inside, parameters = set(module.modules()), set(module.parameters())
        split = parameters - set(ignored)
        if split == parameters != set() and all(owners[p] <= inside for p in parameters):
            units.append(module)
    return units


def _make_contiguous(parameters: Iterator[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.data = parameter.data.contiguous()
