"""What trains: `freeze`, `lora` and `train_only` on any part."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from ..backbones.base import Backbone
from ..modalities.base import Decoder, Encoder
from .config import Last
from .errors import RecipeError, placed
from .parts import Plan

_FROZEN = "_sensorium_frozen"


def adapt(module: nn.Module, plan: Plan, where: str) -> None:
    """Freeze a part, or all but its last blocks, and add adapters, as its section says."""
    section = plan.section
    if section.train_only is not None:
        _train_biases(module, plan, where)
    if section.lora is not None:
        _add_lora(module, section.lora, where)
    if section.freeze is True:
        if section.lora is None:  # with adapters the part is frozen but for them
            module.requires_grad_(False)
            keep_still(module)
    elif isinstance(section.freeze, Last):
        _freeze_but_last(module, section.freeze.last, where)


def keep_still(module: nn.Module) -> None:
    """In `eval()` from now on, whatever `train()` is told."""
    setattr(module, _FROZEN, True)
    module.eval()


def settle(model: nn.Module) -> None:
    """Put every frozen module back into `eval()`, whatever `train()` just did."""
    for module in model.modules():
        if getattr(module, _FROZEN, False):
            module.eval()


def is_frozen(module: nn.Module) -> bool:
    """True where nothing in it trains and nothing in it may change."""
    return getattr(module, _FROZEN, False) and not any(p.requires_grad for p in module.parameters())


def _blocks(module: nn.Module) -> list[nn.Module]:
    return list(module.blocks()) if isinstance(module, (Encoder, Decoder, Backbone)) else []


def _freeze_but_last(module: nn.Module, last: int, where: str) -> None:
    blocks = _blocks(module)
    if not blocks:
        raise RecipeError(f"{where}.freeze: {type(module).__name__} has no known blocks; say true")
    if last > len(blocks):
        raise RecipeError(f"{where}.freeze.last: found {last}, it has {len(blocks)} blocks")
    open_ = blocks[len(blocks) - last :]
    module.requires_grad_(False)
    for block in open_:
        block.requires_grad_(True)
    trains = {m for block in open_ for m in block.modules()}
    for part in module.modules():
        if not trains & set(part.modules()):
            keep_still(part)


def _train_biases(module: nn.Module, plan: Plan, where: str) -> None:
    """Only the biases train: Ben Zaken et al., "BitFit", 2022; Udever (2023) for embeddings."""
    section = plan.section
    if section.lora is not None or section.freeze is not False:
        other = "freeze" if section.lora is None else "lora"
        raise RecipeError(f"{where}.train_only: stands beside {other}; take one of them out")
    biases = {id(p) for name, p in module.named_parameters() if name.endswith("bias")}
    if not biases:
        raise RecipeError(
            f"{where}.train_only: {section.type} has no bias to train; say lora: {{r: 8}}, or "
            "freeze: {last: 1}"
        )
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in biases)


def _add_lora(module: nn.Module, options: dict[str, Any], where: str) -> None:
    """peft's LoRA on the linear layers of a part's blocks, or on the `target_modules` named."""
    from peft import LoraConfig, inject_adapter_in_model

    options = dict(options)
    known = [field.name for field in dataclasses.fields(LoraConfig)]
    for name in options:
        if name not in known:
            raise RecipeError(
                f"{where}.lora.{name}: peft's LoraConfig has no such option; its usual ones are "
                "r, lora_alpha, lora_dropout and target_modules"
            )
    if "target_modules" not in options:
        inside = {m for b in _blocks(module) for m in b.modules()} or set(module.modules())
        options["target_modules"] = [
            name for name, m in module.named_modules() if isinstance(m, nn.Linear) and m in inside
        ]
    try:
        config = LoraConfig(**options)
        inject_adapter_in_model(config, module)
    except (TypeError, ValueError) as error:
        raise RecipeError(placed(f"{where}.lora", error)) from error
