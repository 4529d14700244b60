"""Which tensors of a model a run has to keep: the trained ones, and those stored nowhere else.

A part that is frozen and came from a library or the hub is not kept, only its fingerprint. What
came from another run, a file or a folder of this machine is kept: these may move, and a run loads
without them. Of a folder's, parts of more than `MAX_COPY` bytes are not: the run names the folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ...modalities.base import Encoder
from ...modalities.messages import short_repr
from ...tasks.common import local_shard
from ..cache import content_hash, processor_settings
from ..model import Model, validate_loaded
from ..model.parameters import is_frozen
from ..recipe import HUB, ComponentSpec, names_folder
from ..utils import ConfigError, atomic_path, share_like
from .mapped import map_tensors

MAX_COPY = 2**28
"""Bytes of a frozen part from a local folder that are copied into each run."""


def _is_public(module: nn.Module, part: ComponentSpec) -> bool:
    """Return whether a part's weights stay where they are: in a library, on the hub, or in a
    folder that is too large to be copied."""
    if part.section.transforms:
        return False
    if part.weights != "pretrained":
        return part.weights.startswith(HUB)
    size = sum(t.numel() * t.element_size() for t in _untrained_tensors(module).values())
    return size > MAX_COPY or not names_folder(part.options.get("name"))


def _untrained_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a part that do not train, by their name in it."""
    frozen: dict[str, Tensor] = {n: p for n, p in module.named_parameters() if not p.requires_grad}
    return frozen | (dict(module.named_buffers()) if is_frozen(module) else {})


PROCESSOR = ".processor"


def _pretrained_tensors(model: Model) -> dict[str, dict[str, Tensor]]:
    """Return those of them that are as a library or the hub has them, by the place of their part:
    without what transforms changed, also within it."""
    changed = {
        id(tensor)
        for _, module, part in model.components
        if part.section.transforms
        for tensor in (*module.parameters(), *module.buffers())
    }
    return {
        str(where): {n: t for n, t in _untrained_tensors(module).items() if id(t) not in changed}
        for where, module, part in model.components
        if _is_public(module, part)
    }


def saved_tensors(model: Model) -> dict[str, Tensor]:
    """Return the tensors of `model.safetensors`, by their name in the model."""
    parts = _pretrained_tensors(model).values()
    left_out = {id(tensor) for tensors in parts for tensor in tensors.values()}
    state = model.state_dict(keep_vars=True)
    return {name: t for name, t in state.items() if id(t) not in left_out}


def frozen_tensors(model: Model) -> dict[str, Tensor]:
    """Return the saved tensors that never change: frozen ones of parts that came from another
    run or a file, by their name in the model. They are written once, not in every checkpoint."""
    parts = [(m, part) for _, m, part in model.components if part.weights != "none"]
    local = [module for module, part in parts if not _is_public(module, part)]
    still = {id(tensor) for module in local for tensor in _untrained_tensors(module).values()}
    return {name: tensor for name, tensor in saved_tensors(model).items() if id(tensor) in still}


def changing_tensors(model: Model) -> dict[str, Tensor]:
    """Return the saved tensors without those that never change."""
    frozen = frozen_tensors(model)
    return {name: t for name, t in saved_tensors(model).items() if name not in frozen}


@torch.no_grad()
def nonfinite_tensors(model: Model) -> set[str]:
    """Return names of the saved tensors that hold an infinite value or one that is no number; of a
    sharded model, in the share of this process."""
    shares = {name: local_shard(tensor) for name, tensor in saved_tensors(model).items()}
    state = {n: t for n, t in shares.items() if t.is_floating_point() and t.numel()}
    by_device: dict[torch.device, list[str]] = {}
    for name, tensor in state.items():
        by_device.setdefault(tensor.device, []).append(name)
    nonfinite: set[str] = set()
    for names in by_device.values():  # one wait for each device
        finite = torch.stack([torch.isfinite(state[name]).all() for name in names]).tolist()
        nonfinite |= {name for name, good in zip(names, finite, strict=True) if not good}
    return nonfinite


def fingerprints(model: Model) -> dict[str, Any]:
    """Return the SHA-256 of every part's tensors that are not saved, by its place, and the settings
    of every encoder's preprocessing, by its place and `.processor`."""
    if model.fingerprints is not None:
        return model.fingerprints
    prints: dict[str, Any] = {}
    pretrained = _pretrained_tensors(model)
    for where, module, _ in model.components:
        if tensors := pretrained.get(str(where)):
            prints[str(where)] = content_hash(tensors)
        if isinstance(module, Encoder):
            prints[f"{where}{PROCESSOR}"] = processor_settings(module.processor)
    return prints


def check_fingerprints(model: Model, saved: Mapping[str, Any]) -> None:
    """Raise ConfigError for another encoder than the one that the run was trained on, or the same
    one with other preprocessing, by its place."""
    current = fingerprints(model)
    for where, expected in saved.items():
        value = current.get(where)
        if json.dumps(value, sort_keys=True) == json.dumps(expected, sort_keys=True):
            continue
        if where.endswith(PROCESSOR):
            raise ConfigError(_other_settings(where, expected, value or {}))
        raise ConfigError(
            f"{where}: the run was trained on weights {expected[:12]}, these are "
            f"{(value or 'absent')[:12]}; load the ones that it names, or train again"
        )


def _other_settings(where: str, expected: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Return one line that names the settings in which two preprocessings differ."""
    then, now = _flat(expected), _flat(current)
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    differences = ", ".join(
        f"{name} {short_repr(then.get(name))} (now {short_repr(now.get(name))})"
        for name in names[:3]
    )
    others = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"{where}: the run was trained with {differences}{others}; load the encoder that it names, "
        "or train again"
    )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their path, `picture.mean`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= (
            _flat(value, f"{prefix}{name}.")
            if value and isinstance(value, dict)
            else {prefix + name: value}
        )
    return flat


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all. Shared tensors are stored once."""
    names: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
    unique: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and key in names:
            same[name] = names[key]
            continue
        names[key] = name
        unique[name] = tensor.detach().to("cpu").contiguous()
    with atomic_path(path) as temporary:
        save_file(unique, temporary, metadata={"same": json.dumps(same)} if same else None)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return what `write_tensors` wrote; values are read when they are used."""
    try:
        with safe_open(path, "pt") as file:
            same = json.loads((file.metadata() or {}).get("same", "{}"))
        tensors = map_tensors(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{path}: is no whole safetensors file ({error}); copy it again, or train again"
        ) from error
    return tensors | {name: tensors[source] for name, source in same.items()}


def read_names(path: Path) -> set[str]:
    """Return the names of the tensors that `write_tensors` wrote; their values are not read."""
    try:
        with safe_open(path, "pt") as file:
            return {*file.keys(), *json.loads((file.metadata() or {}).get("same", "{}"))}
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: is no whole safetensors file ({error})") from error


def restore(model: Model, tensors: Mapping[str, Tensor], source: str) -> None:
    """Fill a composed model with saved tensors; ConfigError for those that do not fit. Tensors that
    never change may be lacking: they are those that the model was composed with."""
    expected_tensors = saved_tensors(model)
    missing = sorted(set(expected_tensors) - set(tensors) - set(frozen_tensors(model)))
    unknown = sorted(set(tensors) - set(expected_tensors))
    if missing or unknown:
        first = missing[0] if missing else unknown[0]
        raise ConfigError(
            f"{source}: {'lacks' if missing else 'holds an unknown'} {first} "
            f"({len(missing)} missing, {len(unknown)} unknown); was the recipe changed?"
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected_tensors[name].shape:
            raise ConfigError(
                f"{source}: {name} is {tuple(tensor.shape)}, the recipe builds "
                f"{tuple(expected_tensors[name].shape)}; was the recipe changed?"
            )
        if isinstance(expected_tensors[name], nn.Parameter) and bool(tensor.isnan().any()):
            raise ConfigError(f"{source}: {name} holds NaN; copy the file again, or train again")
        expected_tensors[name].copy_(share_like(tensor, expected_tensors[name]))
    for where, module, _ in model.components:
        validate_loaded(module, f"{source}: {where}")
