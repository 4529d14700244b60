"""A new language of a modular encoder: `add_language`."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from .context import TransformContext


def add_language(
    module: nn.Module, context: TransformContext, name: str, source: str | None = None
) -> None:
    """Add the modules of a language beside those of the others, which stay unchanged (X-MOD:
    Pfeiffer et al. 2022).

    name: of the new language. source: the one whose modules it begins as a copy of; None begins at
    random. `train_only: {pattern: <name>}` trains them alone.
    """
    choices = _by_language(module)
    known = list(choices[0])
    if name in known:
        raise ValueError(f"name: {name!r} is there already; the languages are {', '.join(known)}")
    if "." in name or not name:
        raise ValueError(f"name: found {name!r}, expected a name without a dot")
    if source is not None and source not in known:
        raise ValueError(f"source: found {source!r}, expected one of {', '.join(known)}")
    for modules in choices:
        new = copy.deepcopy(modules[source or known[0]])
        if source is None:
            for inner in new.modules():
                if callable(reset := getattr(inner, "reset_parameters", None)):
                    reset()
        modules[name] = new
    configs: list[Any] = [getattr(inner, "config", None) for inner in module.modules()]
    for config in {id(c): c for c in configs if c is not None}.values():
        for field, value in list(vars(config).items()):
            if isinstance(value, (list, tuple)) and [str(v) for v in value] == known:
                setattr(config, field, [*value, name])


def _by_language(module: nn.Module) -> list[nn.ModuleDict]:
    """Return the modules that a network chooses from by language, of every layer. Raise ValueError
    if it has none."""
    choices = [inner for inner in module.modules() if isinstance(inner, nn.ModuleDict) and inner]
    alike = [c for c in choices if list(c) == list(choices[0])]
    if not choices or len(alike) < len(choices):
        raise ValueError(f"{type(module).__name__} has no modules by language; take it out")
    return choices
