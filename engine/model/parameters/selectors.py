"""What `train_only` names: selectors of the parameters of a part that train.

A selector is a function `(module, **options) -> names`, the names as in
`module.named_parameters()`. In a recipe it is set by its name (`train_only: bias`), as a key with
its first option (`train_only: {layers: [0, -1]}`), or as a plug-in with `type`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from ....modalities.messages import did_you_mean
from ...recipe import find, registered
from ...recipe.validation import library_options
from ...utils import ConfigError, located_errors

MODULE = ("module",)
"""The argument of a selector that the engine passes."""


def bias(module: nn.Module) -> Iterable[str]:
    """Biases: Ben Zaken et al., "BitFit", 2022; Udever (2023) for embeddings."""
    return (name for name, _ in module.named_parameters() if name.endswith("bias"))


def embeddings(module: nn.Module) -> Iterable[str]:
    """Tables of tokens, positions and segments; an output layer that shares the table with them."""
    return _within(module, (m for m in module.modules() if isinstance(m, nn.Embedding)))


def norms(module: nn.Module) -> Iterable[str]:
    """Scales and shifts of normalization layers: torch's, and other libraries' by their class's
    name (`LlamaRMSNorm`)."""
    return _within(module, (m for m in module.modules() if "norm" in type(m).__name__.lower()))


def layers(module: nn.Module, layers: list[int]) -> Iterable[str]:
    """Blocks by their index; negative ones count from the end."""
    blocks = list(getattr(module, "blocks", list)())
    for index in layers:
        if not -len(blocks) <= index < len(blocks):
            raise ValueError(f"layers: found {index}; {type(module).__name__} has {len(blocks)}")
    return _within(module, (blocks[index] for index in layers))


def pattern(module: nn.Module, pattern: str) -> Iterable[str]:
    """Return names that a regular expression matches anywhere."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern: {pattern!r} is no regular expression: {error}") from error
    return (name for name, _ in module.named_parameters() if expression.search(name))


def select(module: nn.Module, section: str | Mapping[str, Any], where: str) -> Collection[str]:
    """Return the names of the parameters that a section of `train_only` selects.

    Raise ConfigError for an unknown selector or option, and if nothing is selected.
    """
    name, options = _selector(section, where)
    selector = find("selector", name, f"{where}.type" if "type" in section else where)
    options = library_options(selector, options, where, MODULE)
    with located_errors(where, options):
        names = set(selector(module, **options))
    parameters = [name for name, _ in module.named_parameters()]
    if not names or not names.issubset(parameters):
        selected = f"selects {min(names)!r}" if names else "selects no parameter"
        examples = ", ".join(parameters[:3])
        raise ConfigError(
            f"{where}: {name} {selected} of {type(module).__name__}, whose parameters are "
            f"{examples}"
            f"{', ...' if len(parameters) > 3 else ''}; set lora: {{r: 8}} or freeze: {{last: 1}}"
        )
    return names


def _selector(section: str | Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """Return the name of a selector and its options."""
    if isinstance(section, str):
        return section, {}
    if "type" in section:
        return section["type"], {key: value for key, value in section.items() if key != "type"}
    selectors = [key for key in section if key in registered("selector")]
    if len(selectors) != 1:
        hint = did_you_mean(next(iter(section), ""), registered("selector"))
        raise ConfigError(
            f"{where}: found {', '.join(section) or 'nothing'}, expected one selector{hint}"
        )
    return selectors[0], dict(section)


def _within(module: nn.Module, parts: Iterable[nn.Module]) -> Sequence[str]:
    """Return the names, in the module, of the parameters of its submodules."""
    chosen = {id(parameter) for part in parts for parameter in part.parameters()}
    return [name for name, p in module.named_parameters() if id(p) in chosen]
