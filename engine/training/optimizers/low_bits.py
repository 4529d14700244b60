"""AdamW whose moments take a byte a value (Dettmers et al. 2022, "8-bit Optimizers via Block-wise
Quantization"), by torchao."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torchao.optim import AdamW8bit as TorchaoAdamW8bit
from torchao.optim.subclass_8bit import OptimState8bit

PARTS = ("codes", "scale")
"""Tensors of a moment that are saved; its table of values is always the same."""


class AdamW8bit(TorchaoAdamW8bit):
    """torchao's AdamW8bit. A moment has a scale for each `block_size` values; those of tensors of
    fewer than 4,096 values, or of a number that `block_size` does not divide, are in float32.

    On an accelerator the step is compiled, as torchao has it; on a CPU it is not, where compiling
    takes minutes. The state is that of plain tensors, `exp_avg.codes` and `exp_avg.scale`.
    """

    packs_state = True

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        block_size: int = 256,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, block_size=block_size)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, whose rate stays a number."""
        rate = param_group.get("lr", self.defaults["lr"])
        super().add_param_group(param_group)
        self.param_groups[-1]["lr"] = rate

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        rates = [float(group["lr"]) for group in self.param_groups]
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = torch.tensor(rate)  # of which torchao compiles one step for all
        devices = {p.device.type for group in self.param_groups for p in group["params"]}
        eager = torch.compiler.set_stance("force_eager")
        with eager if devices <= {"cpu", "meta"} else contextlib.nullcontext():
            result = super().step(closure)
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the state, of each moment in 8 bits its plain tensors."""
        values: dict[str, Any] = super().state_dict()
        state = {index: dict(_flat(entry)) for index, entry in values["state"].items()}
        return {**values, "state": state}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        super().load_state_dict({**state_dict, "state": {}})
        parameters = [p for group in self.param_groups for p in group["params"]]
        for index, entry in state_dict["state"].items():
            parameter = parameters[index]
            moments: dict[str, Any] = {}
            for key, value in entry.items():
                name, _, part = key.partition(".")
                if not part:
                    moments[name] = value.clone() if name == "step" else value.to(parameter.device)
                    continue
                if name not in moments:
                    moments[name] = self._new_buffer(parameter, name == "exp_avg")
                getattr(moments[name], part).copy_(value)
            self.state[parameter] = moments


def _flat(entry: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for key, value in entry.items():
        if isinstance(value, OptimState8bit):
            yield from ((f"{key}.{part}", getattr(value, part)) for part in PARTS)
        else:
            yield key, value
