"""The state of an optimizer by the names of the parameters, so that no parameter ever takes up
another's moments, even if parameters were reordered, frozen or added in between."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..model import Model
from ..model.parameters import without_adapter
from ..utils import share_like, whole_tensors

OptimizerState = tuple[Mapping[str, Tensor], Mapping[str, Any]]
"""The tensors of an optimizer's state, by `parameter/key`, and the rest as JSON: `state` by the
same keys, and `groups`, the optimizer's own counters of parameter groups."""


def optimizer_by_name(model: Model, optimizer: torch.optim.Optimizer) -> OptimizerState:
    """Return an optimizer's state; of a sharded model every process has to call it, and the main
    one gets the values."""
    names = _parameter_names(model, optimizer)
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            (tensors if isinstance(value, Tensor) else scalars)[f"{names[index]}/{key}"] = value
    values = {"state": scalars, "groups": _group_values(model, optimizer)}
    return whole_tensors(tensors), values


def restore_optimizer_by_name(
    model: Model,
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
) -> list[str]:
    """Fill an optimizer's state for the parameters that it has; return those without a state,
    which start over."""
    names = _parameter_names(model, optimizer)
    index = {name: i for i, name in enumerate(names)}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **values["state"]}.items():
        parameter, _, key = name.rpartition("/")
        if parameter in index:
            number = index[parameter]
            state.setdefault(number, {})[key] = _state_like(value, parameters[number])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    saved = {name: group["values"] for group in values["groups"] for name in group["names"]}
    groups = _inner(optimizer).param_groups
    for group, group_names in zip(groups, _names(model, optimizer), strict=True):
        group.update(next((saved[name] for name in group_names if name in saved), {}))
    return [name for name, i in index.items() if state and i not in state]


def _state_like(value: Any, parameter: Tensor) -> Any:
    """Return a value of an optimizer's state, split over the processes if its parameter is."""
    if not isinstance(value, Tensor):
        return value
    share = share_like(value, parameter) if value.shape == parameter.shape else value
    return share.clone() if share is value else share  # whose values may lie in a file


def _group_values(model: Model, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return the numbers in an optimizer's groups that are no options: its own counts."""
    inner, groups = _inner(optimizer), []
    options = {*inspect.signature(type(inner)).parameters, "base_lr"}
    for group, names in zip(inner.param_groups, _names(model, optimizer), strict=True):
        counts = {
            key: value
            for key, value in group.items()
            if key not in options and isinstance(value, (int, float))
        }
        if counts:
            groups.append({"names": names, "values": counts})
    return groups


def _inner(optimizer: Any) -> torch.optim.Optimizer:
    """Return the optimizer that changes values, of one that works on copies."""
    inner: torch.optim.Optimizer = getattr(optimizer, "inner", optimizer)
    return inner


def _names(model: Model, optimizer: torch.optim.Optimizer) -> list[list[str]]:
    """Return the names of the parameters of each group."""
    names = {id(p): without_adapter(name) for name, p in model.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]


def _parameter_names(model: Model, optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names of an optimizer's parameters, in the order of its state."""
    return [name for names in _names(model, optimizer) for name in names]
