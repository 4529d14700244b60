"""Trainable parameters of a part: `freeze`, `lora` and `train_only`."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ....backbones.base import Backbone
from ....modalities.base import Decoder, Encoder
from ....modalities.messages import did_you_mean, shorten
from ...recipe import ComponentSpec, FreezeAllButLast
from ...recipe.validation import library_options, parameters
from ...utils import ConfigError, located_errors
from .selectors import select

_FROZEN = "_sensorium_frozen"


def apply_adapters(module: nn.Module, plan: ComponentSpec, where: str) -> None:
    """Freeze a part or some of it and add adapters, according to its section."""
    section = plan.section
    if section.train_only is not None:
        if section.lora is not None or section.freeze is not False:
            other = "freeze" if section.lora is None else "lora"
            raise ConfigError(
                f"{where}.train_only: cannot be combined with {other}; take one of them out"
            )
        selected = select(module, section.train_only, f"{where}.train_only")
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in selected)
    if section.lora is not None:
        add_adapter(module, section.lora, f"{where}.lora")
    if section.freeze is True:
        if section.lora is None:  # with adapters the part is frozen except for them
            module.requires_grad_(False)
            mark_frozen(module)
    elif isinstance(section.freeze, FreezeAllButLast):
        _freeze_but_last(module, section.freeze.last, where)


def without_adapter(name: str) -> str:
    """Return the name of a tensor without the layer that peft wraps around its module."""
    return name.replace(".base_layer.", ".")


def mark_frozen(module: nn.Module) -> None:
    """Keep a module in `eval()` from now on, independent of its parents' mode."""
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
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    children = list(module.children())
    return not tensors and bool(children) and all(_is_still(child) for child in children)


def _blocks(module: nn.Module) -> list[nn.Module]:
    return list(module.blocks()) if isinstance(module, (Encoder, Decoder, Backbone)) else []


def _freeze_but_last(module: nn.Module, last: int, where: str) -> None:
    blocks = _blocks(module)
    if not blocks:
        raise ConfigError(f"{where}.freeze: {type(module).__name__} has no known blocks; use true")
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


def add_adapter(module: nn.Module, section: Mapping[str, Any], where: str) -> Any:
    """Add a peft adapter, LoRA if no `type` is named, to the `target_modules`; by default to the
    linear maps of the part's blocks, or to its convolutions if it has none. Return peft's tuner."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import BaseTunerLayer

    methods = {str(kind.value).lower(): kind for kind in PEFT_TYPE_TO_TUNER_MAPPING}
    name = section.get("type", "lora")
    if name not in methods:
        raise ConfigError(
            f"{where}.type: peft has no adapter {name!r}{did_you_mean(str(name), methods)}"
        )
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[methods[name]]
    options = {key: value for key, value in section.items() if key != "type"}
    options = library_options(config_class, options, where)
    _check_effect(options, where)
    accepted = parameters(config_class)
    if "target_modules" in accepted and options.get("target_modules") is None:
        options["target_modules"] = _exact(_default_targets(module, name == "lora", where), module)
    tuner_class = PEFT_TYPE_TO_TUNER_MAPPING[methods[name]]
    with located_errors(where):
        config = config_class(**options)
        if config.is_prompt_learning or config.is_adaption_prompt:
            raise ValueError(f"type: {name} is prompt learning, which adapts no layer; use lora")
        if tuner_class.uses_shared_state:
            raise ValueError(f"type: {name} shares state between layers; use lora")
        if name == "lora":
            from .lora_layers import LAYERS

            config._register_custom_module(LAYERS)
        with warnings.catch_warnings(), without_config(module):
            warnings.filterwarnings("ignore", "fan_in_fan_out is set to")  # peft sets it by layer
            tuner = tuner_class(module, config, adapter_name="default")
    adapted = [n for n, m in tuner.model.named_modules() if isinstance(m, BaseTunerLayer)]
    _check_patterns(options, adapted, where)
    for layer in tuner.model.modules():
        # torch's encoder layers have a path that reads weights and skips the layers' forwards; it
        # is not taken where a hook is registered.
        if isinstance(layer, BaseTunerLayer):
            layer.register_forward_pre_hook(_no_change)
    return tuner


def _check_effect(options: Mapping[str, Any], where: str) -> None:
    """Refuse options with which peft leaves out adapters, or adapts others, without a word."""
    if options.get("lora_alpha", 1) <= 0:
        raise ConfigError(
            f"{where}.lora_alpha: found {options['lora_alpha']}, expected above 0; no adapter "
            "would train"
        )
    for key in ("layers_to_transform", "layers_pattern"):
        if options.get(key) is not None and not isinstance(options.get("target_modules"), list):
            raise ConfigError(
                f"{where}.{key}: has an effect only beside a list of names; say target_modules: "
                "[q_proj, v_proj], for example"
            )


def _check_patterns(options: Mapping[str, Any], adapted: Sequence[str], where: str) -> None:
    """Refuse patterns of layers that name none of those that are adapted."""
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in options.get(key) or ():
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in adapted):
                raise ConfigError(
                    f"{where}.{key}.{pattern}: names no adapted layer; there are "
                    f"{shorten(', '.join(adapted), 80)}"
                )


def _no_change(layer: nn.Module, args: Any) -> None:
    return None


@contextlib.contextmanager
def without_config(module: nn.Module) -> Iterator[None]:
    """Hide the `config` of a part from peft, which takes a module with one for a model of
    transformers."""
    hidden = {key: vars(module).pop(key) for key in ("config",) if key in vars(module)}
    try:
        yield
    finally:
        vars(module).update(hidden)


def _exact(targets: list[str], module: nn.Module) -> list[str] | str:
    """Return names in the form in which peft selects these alone: it takes the names of a list for
    endings, and a text for a regular expression."""
    names = [name for name, _ in module.named_modules()]
    ends = tuple(f".{target}" for target in targets)
    if {name for name in names if name.endswith(ends)} <= set(targets):
        return targets
    return "|".join(map(re.escape, targets))


def _default_targets(module: nn.Module, lora: bool, where: str) -> list[str]:
    """Return the names of the modules that an adapter is added to if none are named. lora: their
    weights may be read without a call of the module (`lora_layers`)."""
    modules, targets = _inside(module), linear_names(module)
    if lora:
        attention = {n: m for n, m in modules.items() if isinstance(m, nn.MultiheadAttention)}
        fused = {n for n, m in attention.items() if m.in_proj_weight is not None}
        apart = {f"{n}.out_proj" for n in attention if n not in fused}
        targets += sorted(n for n in modules if n in apart) + sorted(fused)
    if not targets:
        convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
        targets = [n for n, m in modules.items() if _is_plain(m, convolutions) and _is_whole(m)]
    if not targets:
        raise ConfigError(
            f"{where}: {type(module).__name__} has no linear map and no convolution that could be "
            "adapted; name target_modules, or set freeze: {last: 1}"
        )
    return targets


def linear_names(module: nn.Module) -> list[str]:
    """Return the names of the linear maps of a part's blocks, of all of it if it has none; without
    the `out_proj` of torch's attention, which it never calls."""
    from transformers.pytorch_utils import Conv1D

    modules = _inside(module)
    attention = {n for n, m in modules.items() if isinstance(m, nn.MultiheadAttention)}
    names = [n for n, m in modules.items() if _is_linear(m, (nn.Linear, Conv1D))]
    return [n for n in names if n.removesuffix(".out_proj") not in attention]


def _inside(module: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of a part's blocks by name; all of them if it has no blocks."""
    inside = {m for b in _blocks(module) for m in b.modules()} or set(module.modules())
    return {name: m for name, m in module.named_modules() if name and m in inside}


def _is_whole(convolution: Any) -> bool:
    """Return whether peft can adapt a convolution: it supports no dilation, and merges no
    groups."""
    return convolution.groups == 1 and set(convolution.dilation) == {1}


def _is_linear(module: nn.Module, types: tuple[type[nn.Module], ...]) -> bool:
    """Return whether a module is a linear map, or of a subclass that returns one tensor as such a
    map does (routers of experts return a tuple)."""
    if _is_plain(module, types):
        return True
    if not isinstance(module, nn.Linear) or module.weight is None:
        return False
    try:
        output = module(module.weight.new_zeros(1, 1, module.in_features))
    except Exception:  # it takes something else
        return False
    return isinstance(output, Tensor) and output.shape == (1, 1, module.out_features)


def _is_plain(module: nn.Module, types: tuple[type[nn.Module], ...]) -> bool:
    """Return whether a module computes as one of the types: its weight is there, and its
    forward is the type's (routers of experts are linear maps that return a tuple)."""
    if getattr(module, "weight", None) is None or nn.utils.parametrize.is_parametrized(module):
        return False
    return any(isinstance(module, kind) and type(module).forward is kind.forward for kind in types)
