"""A module whose parameters are gathered together (FSDP2), by collectives in an agreed order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.fsdp._fully_shard._fsdp_collectives import (
    DefaultAllGather,
    DefaultReduceScatter,
)

from .order import CollectiveOrder


class ShardedUnit:
    """A module of which each process holds a share of every parameter.

    ignored: parameters that stay whole. learned: numbers of the trained parameters with a gradient
    since they were last read.
    """

    def __init__(
        self, module: nn.Module, order: CollectiveOrder, mesh: Any, ignored: set[nn.Parameter]
    ) -> None:
        self.module: Any = fully_shard(module, mesh=mesh, ignored_params=ignored)
        self.state = self.module._get_fsdp_state()
        self.group = self._group()
        self.learned: set[int] = set()
        if self.group is None:  # the root, if all that it holds lies in other units
            return
        gather, reduce = _AllGather(order), _ReduceScatter(order)
        gather.number = order.register(self._join_gather)
        reduce.number = order.register(self._join_reduce)
        self.module.set_custom_all_gather(gather)
        self.module.set_custom_reduce_scatter(reduce)
        # gloo has no mean; sums are divided by the number of processes here.
        self.module.set_force_sum_reduction_for_comms(True)
        self._reduce_own = self.group.post_backward
        self.group.post_backward = self._reduce

    def _group(self) -> Any:
        """Return torch's record of the parameters; None if all lie in other units."""
        return self.state._fsdp_param_group

    @property
    def trained(self) -> list[Any]:
        """torch's records of the parameters that train."""
        if self.group is None:
            return []
        return [p for p in self.group.fsdp_params if p.sharded_param.requires_grad]

    def begin(self) -> None:
        """Gather and shard once, in every process: torch then knows the shapes."""
        self.module.unshard()
        self.module.reshard()

    def end(self) -> None:
        """Shard again after a forward or backward, so that the next one gathers new values."""
        self.module.reshard()
        if self.group is not None:
            self.group._post_forward_indices.clear()
            self.group.comm_ctx.post_forward_order.clear()

    def _reduce(self, *unused: Any) -> None:
        """Called by torch behind a backward: reduce all gradients if there is any. All of them, as
        another process may have learned other parameters."""
        learned = {i for i, p in enumerate(self.trained) if _has_grad(p)}
        if learned:
            self.learned |= learned
            self._fill_with_zeros()
        self._reduce_own(*unused)

    def _fill_with_zeros(self) -> None:
        for parameter in self.trained:
            if not _has_grad(parameter):
                parameter.unsharded_accumulated_grad = torch.zeros(
                    parameter._orig_size,
                    dtype=parameter.reduce_dtype or parameter.orig_dtype,
                    device=self.group.device,
                )

    def _join_gather(self) -> None:
        """Send the own share to processes that gather the module."""
        shares = [p._sharded_param_data for p in self.group.fsdp_params]
        if len({share.dtype for share in shares}) > 1:  # as torch does
            shares = [share.view(torch.uint8) for share in shares]
        share = torch.cat(shares)
        processes = self.group._all_gather_process_group
        whole = share.new_empty(share.numel() * processes.size())
        distributed.all_gather_into_tensor(whole, share, group=processes)

    def _join_reduce(self) -> None:
        """Take up the gradients of other processes, with those of the own that are not reduced
        yet."""
        group = self.group
        state, reshards = group._training_state, group.reshard_after_backward
        group.reshard_after_backward = False  # this process may be in the middle of the module
        self.learned |= {i for i, p in enumerate(self.trained) if _has_grad(p)}
        self._fill_with_zeros()
        self._reduce_own()
        group._training_state, group.reshard_after_backward = state, reshards
        if (pending := group.comm_ctx.reduce_scatter_state) is not None:
            if pending.event is not None:
                group.device_handle.current_stream().wait_event(pending.event)
            group.comm_ctx.reduce_scatter_state = None


def _has_grad(parameter: Any) -> bool:
    whole = getattr(parameter, "_unsharded_param", None)
    return parameter.unsharded_accumulated_grad is not None or (
        whole is not None and whole.grad is not None
    )


class _InOrder:
    """A collective of torch, at its turn."""

    number: int

    def __init__(self, order: CollectiveOrder) -> None:
        self.order = order

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, *args: Any, **more: Any) -> Any:
        self.order.request(self.number)
        collective: Any = super()
        return collective.__call__(output_tensor, input_tensor, *args, **more)


class _AllGather(_InOrder, DefaultAllGather):
    """torch's gather."""


class _ReduceScatter(_InOrder, DefaultReduceScatter):
    """torch's reduction."""
