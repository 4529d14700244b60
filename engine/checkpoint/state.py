"""Which tensors of a model a run has to keep: what was trained, and what nobody else has.

A part that is frozen and came from elsewhere is not kept, only its fingerprint. A checkpoint
adds the optimizer as safetensors, the rest as JSON: nothing is ever unpickled.
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...modalities.base import Encoder
from ...modalities.messages import short_repr
from ..cache import content_hash, processor_settings
from ..model import Model, validate_loaded
from ..model.parameters import is_frozen
from ..recipe import ComponentSpec
from ..utils import ConfigError, RuntimeFailure, atomic_path, write_text

PROCESSOR = ".processor"


def _pretrained_tensors(module: nn.Module, part: ComponentSpec) -> dict[str, Tensor]:
    """The tensors of a part that were loaded and did not train, by their name in it."""
    if part.weights == "none":
        return {}
    found: dict[str, Tensor] = {n: p for n, p in module.named_parameters() if not p.requires_grad}
    return found | (dict(module.named_buffers()) if is_frozen(module) else {})


def saved_tensors(model: Model) -> dict[str, Tensor]:
    """The tensors of `model.safetensors`, by their name in the model."""
    parts = [_pretrained_tensors(module, part) for _, module, part in model.components]
    left_out = {id(tensor) for found in parts for tensor in found.values()}
    state = model.state_dict(keep_vars=True)
    return {name: t.detach() for name, t in state.items() if id(t) not in left_out}


def fingerprints(model: Model) -> dict[str, Any]:
    """Return the SHA-256 of what is not kept of every part, by its place, and the settings of
    every encoder's preprocessing, by its place and `.processor`."""
    prints: dict[str, Any] = {}
    for where, module, part in model.components:
        if tensors := _pretrained_tensors(module, part):
            prints[str(where)] = content_hash(tensors)
        if isinstance(module, Encoder):
            prints[f"{where}{PROCESSOR}"] = processor_settings(module.processor)
    return prints


def check_fingerprints(model: Model, known: Mapping[str, Any]) -> None:
    """Raise ConfigError for another encoder than the one that the run was trained on, or the same
    one with other preprocessing, by its place."""
    current = fingerprints(model)
    for where, expected in known.items():
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
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"{where}: the run was trained with {differences}{more}; load the encoder that it names, "
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
    """Write a safetensors file, whole or not at all. Shared tensors stand once."""
    seen: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
    unique: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and key in seen:
            same[name] = seen[key]
            continue
        seen[key] = name
        unique[name] = tensor.detach().to("cpu").contiguous()
    with atomic_path(path) as beside:
        save_file(unique, beside, metadata={"same": json.dumps(same)} if same else None)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """What `write_tensors` wrote."""
    try:
        found = load_file(path)
        with safe_open(path, "pt") as file:
            same = json.loads((file.metadata() or {}).get("same", "{}"))
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{path}: is no whole safetensors file ({error}); copy it again, or train again"
        ) from error
    return found | {name: found[source] for name, source in same.items()}


def restore(model: Model, tensors: Mapping[str, Tensor], source: str) -> None:
    """Fill a composed model with what was kept; RecipeError for what does not fit."""
    wanted = saved_tensors(model)
    missing, unknown = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or unknown:
        first = missing[0] if missing else unknown[0]
        raise ConfigError(
            f"{source}: {'lacks' if missing else 'holds an unknown'} {first} "
            f"({len(missing)} missing, {len(unknown)} unknown); was the recipe changed?"
        )
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ConfigError(
                f"{source}: {name} is {tuple(tensor.shape)}, the recipe builds "
                f"{tuple(wanted[name].shape)}; was the recipe changed?"
            )
        wanted[name].copy_(tensor)
    for where, module, _ in model.components:
        validate_loaded(module, f"{source}: {where}")


class Checkpoints:
    """The checkpoints of a run, `checkpoints/step-00000150/`, the newest few kept."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def newest(self) -> Path | None:
        found = sorted(self.folder.glob("step-*/state.json"))
        return found[-1].parent if found else None

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def write(
        self,
        step: int,
        model: Model,
        optimizer: torch.optim.Optimizer,
        extra: Mapping[str, Any],
    ) -> Path:
        """Write a checkpoint beside, then move it into place: it is whole or not there."""
        beside = self.folder / ".part"
        shutil.rmtree(beside, ignore_errors=True)  # what a kill left
        beside.mkdir(parents=True)
        write_tensors(beside / "model.safetensors", saved_tensors(model))
        tensors, scalars = split_optimizer(optimizer)
        write_tensors(beside / "optimizer.safetensors", tensors)
        groups = _group_state(optimizer)
        callbacks = extra.get("callbacks", {})
        tensors = {n: v for n, v in callbacks.items() if isinstance(v, Tensor)}
        write_tensors(beside / "callbacks.safetensors", tensors)
        plain = {n: v for n, v in callbacks.items() if n not in tensors}
        state = {"step": step, "optimizer": scalars, "optimizer_groups": groups, **extra}
        state["callbacks"] = plain
        write_text(beside / "state.json", json.dumps(state))
        path = self.path(step)
        shutil.rmtree(path, ignore_errors=True)
        beside.rename(path)
        for old in sorted(self.folder.glob("step-*"))[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        return path

    def read(self, path: Path, model: Model, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Fill model and optimizer; gives the JSON state."""
        try:
            state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
            with torch.no_grad():
                restore(model, read_tensors(path / "model.safetensors"), str(path))
            tensors = read_tensors(path / "optimizer.safetensors")
            join_optimizer(optimizer, tensors, state["optimizer"])
            for group, values in zip(
                optimizer.param_groups, state["optimizer_groups"], strict=True
            ):
                group.update(values)
            state["callbacks"] |= read_tensors(path / "callbacks.safetensors")
            return state
        except (OSError, json.JSONDecodeError) as error:
            raise RuntimeFailure(f"{path}: is no whole checkpoint ({error}); remove it") from error


def split_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            (tensors if isinstance(value, Tensor) else scalars)[f"{index}.{key}"] = value
    return tensors, scalars


def join_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]
) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **scalars}.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _group_state(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return what an optimizer itself counts in its groups: their numbers that are no options."""
    options = {*inspect.signature(type(optimizer)).parameters, "base_lr"}
    return [
        {k: v for k, v in group.items() if k not in options and isinstance(v, (int, float))}
        for group in optimizer.param_groups
    ]
