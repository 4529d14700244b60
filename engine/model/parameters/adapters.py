"""What trains of a part: `freeze`, `lora` and `train_only`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ....backbones.base import Backbone
from ....modalities.base import Decoder, Encoder
from ....modalities.messages import did_you_mean
from ...recipe import ComponentSpec, FreezeAllButLast
from ...recipe.validation import library_options, parameters
from ...utils import ConfigError, with_location
from .selectors import select

_FROZEN = "_sensorium_frozen"


def apply_adapters(module: nn.Module, plan: ComponentSpec, where: str) -> None:
    """Freeze a part or some of it and add adapters, as its section says."""
    section = plan.section
    if section.train_only is not None:
        if section.lora is not None or section.freeze is not False:
            other = "freeze" if section.lora is None else "lora"
            raise ConfigError(f"{where}.train_only: stands beside {other}; take one of them out")
        chosen = select(module, section.train_only, f"{where}.train_only")
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in chosen)
    if section.lora is not None:
        _add_adapter(module, section.lora, f"{where}.lora")
    if section.freeze is True:
        if section.lora is None:  # with adapters the part is frozen but for them
            module.requires_grad_(False)
            mark_frozen(module)
    elif isinstance(section.freeze, FreezeAllButLast):
        _freeze_but_last(module, section.freeze.last, where)


def mark_frozen(module: nn.Module) -> None:
    """Keep a module in `eval()` from now on, whatever mode its parents are put in."""
    setattr(module, _FROZEN, True)
    module.eval()


def restore_frozen_eval(model: nn.Module) -> None:
    """Put every module that is marked as frozen back into `eval()`."""
    for module in model.modules():
        if getattr(module, _FROZEN, False):
            module.eval()


def is_frozen(module: nn.Module) -> bool:
    """Return whether nothing in a module trains and nothing in it may change."""
    return _is_still(module) and not any(p.requires_grad for p in module.parameters())


def _is_still(module: nn.Module) -> bool:
    """Return whether a module stays in `eval()`, or only wraps modules that do."""
    if getattr(module, _FROZEN, False):
        return True
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    children = list(module.children())
    return not own and bool(children) and all(_is_still(child) for child in children)


def _blocks(module: nn.Module) -> list[nn.Module]:
    return list(module.blocks()) if isinstance(module, (Encoder, Decoder, Backbone)) else []


def _freeze_but_last(module: nn.Module, last: int, where: str) -> None:
    blocks = _blocks(module)
    if not blocks:
        raise ConfigError(f"{where}.freeze: {type(module).__name__} has no known blocks; say true")
    if last > len(blocks):
        raise ConfigError(f"{where}.freeze.last: found {last}, it has {len(blocks)} blocks")
    open_ = blocks[len(blocks) - last :]
    module.requires_grad_(False)
    for block in open_:
        block.requires_grad_(True)
    trains = {m for block in open_ for m in block.modules()}
    for part in module.modules():
        if not trains & set(part.modules()):
            mark_frozen(part)


def _add_adapter(module: nn.Module, section: Mapping[str, Any], where: str) -> None:
    """Add a peft adapter, LoRA if no `type` is named, to the `target_modules`, which are the
    linear layers of the part's blocks if none are named."""
    from peft import (
        PEFT_TYPE_TO_CONFIG_MAPPING,
        PEFT_TYPE_TO_TUNER_MAPPING,
        inject_adapter_in_model,
    )

    methods = {str(kind.value).lower(): kind for kind in PEFT_TYPE_TO_TUNER_MAPPING}
    name = section.get("type", "lora")
    if name not in methods:
        raise ConfigError(
            f"{where}.type: peft has no adapter {name!r}{did_you_mean(str(name), methods)}"
        )
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[methods[name]]
    given = {key: value for key, value in section.items() if key != "type"}
    options = library_options(config_class, given, where)
    known = parameters(config_class)
    if "target_modules" in known and options.get("target_modules") is None:
        inside = {m for b in _blocks(module) for m in b.modules()} or set(module.modules())
        options["target_modules"] = [
            name for name, m in module.named_modules() if isinstance(m, nn.Linear) and m in inside
        ]
    try:
        inject_adapter_in_model(config_class(**options), module)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(with_location(where, error)) from error
