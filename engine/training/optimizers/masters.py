"""Weights in bfloat16 whose optimizer works on float32 copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

MASTER = "master"
"""The key of a parameter's float32 copy in the optimizer's state."""


class MasterWeights(torch.optim.Optimizer):
    """An optimizer over parameters of which some are in bfloat16, where a small step would be
    rounded away: it changes float32 copies, and the parameters are these, rounded.

    groups: as of any optimizer. make: groups of float32 parameters -> the optimizer that changes
    them, `inner`. Its state and the copies are this one's state.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    ) -> None:
        super().__init__(groups, {})
        self.masters: dict[Tensor, Tensor] = {
            p: p if p.dtype == torch.float32 else nn.Parameter(p.detach().float())
            for group in self.param_groups
            for p in group["params"]
        }
        inner = [
            {**group, "params": [self.masters[p] for p in group["params"]]}
            for group in self.param_groups
        ]
        self.inner = make(inner)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change the copies by the gradients of the parameters, and these after them."""
        for group, inner in zip(self.param_groups, self.inner.param_groups, strict=True):
            inner["lr"] = group["lr"]
        copies = [(p, master) for p, master in self.masters.items() if master is not p]
        for parameter, master in copies:
            if parameter.grad is not None:
                master.grad, parameter.grad = parameter.grad.float(), None
        self.inner.step()
        for parameter, master in copies:
            parameter.copy_(master)
            master.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the inner optimizer's state, with the copies."""
        values: dict[str, Any] = self.inner.state_dict()
        state = {index: dict(entry) for index, entry in values["state"].items()}
        for index, (parameter, master) in enumerate(self.masters.items()):
            if master is not parameter:
                state.setdefault(index, {})[MASTER] = master.detach()
        return {**values, "state": state}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned; a copy that it lacks stays."""
        masters, state = list(self.masters.values()), {}
        for index, entry in state_dict["state"].items():
            if MASTER in entry:
                masters[index].copy_(entry[MASTER])
            rest = {key: value for key, value in entry.items() if key != MASTER}
            if rest:
                state[index] = rest
        self.inner.load_state_dict({**state_dict, "state": state})
