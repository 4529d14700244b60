"""SGD and AdamW whose steps are scaled by the tensor that they move.

`sgd_sai`: Xu et al. 2024, "No More Adam", algorithm 1. `adamw_rms`: AdamW with Adafactor's
parameter scaling (Shazeer and Stern 2018, section 8), by which nanoT5 (Nawrot 2023) trains T5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]


class SGDSaI(Optimizer):
    """SGD with momentum whose rate for each tensor is scaled once, by the gain of its first
    gradient: `norm / (standard deviation + eps)`.

    The state of a tensor is one momentum buffer and the gain. A multiple of the loss leaves the
    gain as it is. A tensor of one element has no deviation; its gain is 1. momentum: share of the
    buffer that stays, 0 or more and below 1.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        momentum: float = 0.9,
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        _check(lr=lr, eps=eps, weight_decay=weight_decay)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum: found {momentum}, expected 0 <= momentum < 1")
        defaults = {"lr": lr, "momentum": momentum, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = _evaluate(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["gain"] = gain(gradient, group["eps"])
                    state["momentum"] = gradient.clone()
                else:
                    state["momentum"].lerp_(gradient, 1 - group["momentum"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(group["lr"] * state["gain"] * state["momentum"])
        return loss


def gain(gradient: Tensor, eps: float) -> Tensor:
    """Return the gain of a gradient of any shape, a scalar in float32."""
    if gradient.numel() < 2:
        return torch.ones((), device=gradient.device)
    values = gradient.float()
    return values.norm() / (values.std() + eps)


class AdamWRMS(Optimizer):
    """AdamW whose step is proportional to the root mean square of the tensor that it moves, at
    least `min_rms`: a rate is a relative change, one for tensors of any size."""

    def __init__(
        self,
        params: Parameters,
        lr: float = 2e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        min_rms: float = 1e-3,
    ) -> None:
        _check(lr=lr, eps=eps, weight_decay=weight_decay, min_rms=min_rms)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas: found {betas}, expected two numbers 0 <= beta < 1")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "min_rms": min_rms})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = _evaluate(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (first, second) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        state["exp_avg"].lerp_(gradient, 1 - first)
        state["exp_avg_sq"].lerp_(gradient.square(), 1 - second)
        mean = state["exp_avg"] / (1 - first ** state["step"])
        scale = (state["exp_avg_sq"] / (1 - second ** state["step"])).sqrt() + group["eps"]
        rms = parameter.float().square().mean().sqrt().clamp(min=group["min_rms"])
        parameter.sub_(group["lr"] * rms * mean / scale)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])


def _check(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name}: found {value}, expected a number of 0 or more")


def _evaluate(closure: Callable[[], float] | None) -> float | None:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
