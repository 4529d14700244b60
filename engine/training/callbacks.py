"""Callbacks: called by a recipe's `callbacks:` after every optimizer step.

A callback is a plug-in: `callbacks: [{type: my_file:LogNorms, every: 10}]`. Its options are its
constructor's; its state is part of every checkpoint, so that a resumed run continues unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...modalities.base import Count, PositiveInt, Probability
from ..recipe import CallbackSection, find
from ..recipe.validation import library_options, parameters
from ..utils import located_errors, share_like, whole_tensor


class Callback:
    """Base class of callbacks. Override the methods needed; `trainer` is the run's `Trainer`."""

    def on_train_begin(self, trainer: Any) -> None:
        """Called once before the first step of this process, after a checkpoint is restored."""

    def on_step_end(self, trainer: Any) -> None:
        """Called after each optimizer step, before validation and the checkpoint.

        `trainer.global_step` counts the steps that are done. `trainer.model`, `trainer.optimizer`,
        `trainer.datasets` and `trainer.log` may be used; `trainer.should_stop = True` ends the
        training after this step. With several processes each calls its own. With `parallel: fsdp`
        parameters are shares (`DTensor`): every process takes part in reading a whole one.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the state that survives a restart: tensors and JSON values, by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""


class MagnitudePruning(Callback):
    """Set the smallest weights of matrices and kernels to zero, more of them step by step.

    The share of zeros grows from 0 at step `begin` to `sparsity` at step `end` along a cubic curve
    (Zhu and Gupta, "To prune, or not to prune", 2017, equation 1). Pruned weights stay zero.

    sparsity: share of zeros of each tensor, 0 to 1. every: steps between two prunings. pattern:
    regular expression; parameters with a matching name are pruned, by default all that train and
    have two or more axes.
    """

    def __init__(
        self,
        *,
        sparsity: Probability,
        begin: Count = 0,
        end: PositiveInt,
        every: PositiveInt = 1,
        pattern: str = "",
    ) -> None:
        if not 0 <= sparsity < 1:
            raise ValueError(f"sparsity: found {sparsity}, expected 0 <= sparsity < 1")
        if not 0 <= begin < end:
            raise ValueError(f"end: found {end}, expected a step after begin ({begin})")
        if every < 1:
            raise ValueError(f"every: found {every}, expected 1 or more")
        self.sparsity, self.begin, self.end, self.every = sparsity, begin, end, every
        self.pattern = re.compile(pattern)
        self.masks: dict[str, Tensor] = {}

    def target(self, step: int) -> float:
        """Return the share of zeros after a step."""
        progress = min(max((step - self.begin) / (self.end - self.begin), 0.0), 1.0)
        return self.sparsity * (1 - (1 - progress) ** 3)

    @torch.no_grad()
    def on_step_end(self, trainer: Any) -> None:
        step = trainer.global_step
        due = self.begin < step <= self.end and (step - self.begin) % self.every == 0
        for name, parameter in self._pruned(trainer.model):
            if due or step == self.end:
                self.masks[name] = magnitude_mask(whole_tensor(parameter), self.target(step))
            if name in self.masks:
                parameter.mul_(share_like(self.masks[name].to(parameter.device), parameter))

    def _pruned(self, model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter.ndim > 1 and self.pattern.search(name):
                yield name, parameter

    def state_dict(self) -> dict[str, Any]:
        return dict(self.masks)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.masks = dict(state)


def magnitude_mask(weights: Tensor, sparsity: float) -> Tensor:
    """Return a bool mask of a tensor's shape, False at the `sparsity` of smallest magnitude."""
    order = weights.abs().flatten().argsort(stable=True)
    mask = torch.ones(weights.numel(), dtype=torch.bool, device=weights.device)
    mask[order[: round(sparsity * weights.numel())]] = False
    return mask.view_as(weights)


def build_callbacks(sections: Sequence[CallbackSection]) -> list[Callback]:
    """Return the callbacks of a recipe, in its order.

    Raise ConfigError with the place of an unknown type or option.
    """
    built: list[Callback] = []
    for index, section in enumerate(sections):
        where = f"callbacks.{index}"
        callback_class = find("callback", section.type, f"{where}.type")
        options = library_options(callback_class, section.options, where, ())
        with located_errors(where, parameters(callback_class), options):
            built.append(callback_class(**options))
    return built


def callback_states(callbacks: Sequence[Callback]) -> dict[str, Any]:
    """Return the states of all callbacks, `<index>.<name>` -> tensor or JSON value."""
    return {
        f"{index}.{name}": value
        for index, callback in enumerate(callbacks)
        for name, value in callback.state_dict().items()
    }


def load_callback_states(callbacks: Sequence[Callback], states: Mapping[str, Any]) -> None:
    """Hand every callback its part of what `callback_states` returned."""
    for index, callback in enumerate(callbacks):
        prefix = f"{index}."
        callback.load_state_dict(
            {n.removeprefix(prefix): v for n, v in states.items() if n.startswith(prefix)}
        )
