"""Begin a model where another recipe's left off, with its trained tensors."""

from __future__ import annotations

from collections.abc import Container, Mapping

import torch
from torch import Tensor, nn

from ..model import BuiltComponent, Model, validate_loaded
from ..model.parameters import without_adapter
from ..recipe import ComponentPath
from ..utils import ConfigError
from .state import saved_tensors


@torch.no_grad()
def take_over(model: Model, tensors: Mapping[str, Tensor], anew: Container[ComponentPath]) -> None:
    """Copy what another model was saved with into this one, part by part.

    anew: parts that begin with weights of their own; other parts have to hold all that was saved
    of them. Adapters may be added, not taken away. A part that holds trained tensors and does not
    train any more is saved whole from now on.
    """
    state = model.state_dict(keep_vars=True)
    names = {without_adapter(name): name for name in state}
    parts = _Parts(model)
    copied: set[str] = set()
    for name, value in tensors.items():
        owners, target = parts.owners(name), names.get(without_adapter(name))
        if any(part.where in anew for part in owners) or (target is None and not owners):
            continue  # tensors without a part in this recipe are dropped
        if target is None or state[target].shape != value.shape:
            built = f"builds {tuple(state[target].shape)}" if target else "has no such tensor"
            raise ConfigError(
                f"{owners[-1].where}: the stage before has {name} {tuple(value.shape)}, this one "
                f"{built}; keep the options and adapters that it was built with, or say where its "
                "weights come from"
            )
        if not value.is_meta:
            state[target].copy_(value)
        copied.add(target)
    _begin_averages(model, copied)
    _save_whole(model, parts, copied)
    if not _any_meta(model):
        for where, module, _ in model.components:
            validate_loaded(module, where)


class _Parts:
    """The parts of a model by the names of their tensors."""

    def __init__(self, model: Model) -> None:
        components: dict[int, list[BuiltComponent]] = {}
        for component in model.components:
            components.setdefault(id(component.module), []).append(component)
        self._named = {
            name: components[id(module)]
            for name, module in model.named_modules(remove_duplicate=False)
            if id(module) in components
        }
        for name in model.streams:  # the average of an encoder belongs to it
            self._named[f"streams.{name}.ema"] = self._named[f"streams.{name}.encoder"]

    def owners(self, tensor: str) -> list[BuiltComponent]:
        """Return the parts that a tensor lies in, the outermost first."""
        keys = without_adapter(tensor).split(".")
        prefixes = (".".join(keys[:i]) for i in range(1, len(keys)))
        return [part for prefix in prefixes for part in self._named.get(prefix, ())]


def _begin_averages(model: Model, copied: Container[str]) -> None:
    """A moving average that the model before did not have begins as its encoder does."""
    for name in model.streams:
        stream = model.stream(name)
        if stream.ema is None or _any_meta(stream):
            continue
        if f"streams.{name}.ema.{next(iter(stream.ema.state_dict()), '')}" not in copied:
            stream.ema.load_state_dict(stream.encoder.state_dict())


def _any_meta(module: nn.Module) -> bool:
    return any(p.is_meta for p in module.parameters())


def _save_whole(model: Model, parts: _Parts, copied: set[str]) -> None:
    """What was trained before and is frozen now has no other source than this run."""
    unsaved = copied - set(saved_tensors(model))
    for name in unsaved:
        for part in parts.owners(name):
            part.plan.section.weights = "none"
    if unsaved:
        model.plan.update_recipe()
