"""The weights of a run that was trained with adapters, with the adapters merged into them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from ...utils import ConfigError
from .adapters import add_adapter, without_config


@contextlib.contextmanager
def adapters_to_merge(
    module: nn.Module, sections: Sequence[tuple[str, nn.Module, Mapping[str, Any]]]
) -> Iterator[None]:
    """Give a part the adapters that a run was trained with, for as long as its state is loaded;
    then merge them, so that the part is as it was built.

    sections: (place in the run's recipe, part, its `lora` section) of the part and the parts within
    it, an owner before its parts. Raise ConfigError if an adapter cannot be merged.
    """
    trains = {id(p): p.requires_grad for p in module.parameters()}
    tuners = [
        (where, part, add_adapter(part, lora, f"{where}.lora")) for where, part, lora in sections
    ]
    yield
    for where, part, tuner in reversed(tuners):
        _check_mergeable(part, where)
        try:
            with without_config(part):
                tuner.merge_and_unload()
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            text = " ".join(str(error).split())
            raise ConfigError(f"{where}.lora: cannot be merged: {text}") from error
    for parameter in module.parameters():
        parameter.requires_grad_(trains.get(id(parameter), True))


def _check_mergeable(module: nn.Module, where: str) -> None:
    """Refuse an adapter of a weight that another module shares, or that is computed."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    users: dict[int, set[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        users.setdefault(id(parameter), set()).add(name)
    for name, layer in module.named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        base = layer.get_base_layer()
        for parameter in base.parameters(recurse=False):
            other_modules = sorted(n for n in users[id(parameter)] if not n.startswith(f"{name}."))
            if other_modules:
                raise ConfigError(
                    f"{where}.lora: the adapter of {name} cannot be merged, since its weight is "
                    f"that of {other_modules[0]} too; train it again with target_modules that "
                    "leave it out"
                )
        if nn.utils.parametrize.is_parametrized(base):
            raise ConfigError(
                f"{where}.lora: the adapter of {name} cannot be merged, since its weight is "
                "computed from others; train it again with target_modules that leave it out"
            )
