"""One set of weights out of several of the same structure: `merge`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ...recipe import ComponentPath
from .context import TransformContext

State = Mapping[str, Tensor]
MOMENT = "/exp_avg_sq"
"""How an optimizer's file names its running mean of squared gradients."""


def merge(
    module: nn.Module,
    context: TransformContext,
    sources: list[str],
    by: Literal["mean", "fisher", "task_arithmetic"] = "mean",
    factors: list[float] | None = None,
    fisher: list[str] | None = None,
) -> None:
    """Merge the part's weights with those of other sources, each a value of `weights:` (`runs/a`,
    `runs/a:image`, a file) or, in `sensorium convert`, a folder.

    by: `mean`, weighted by `factors`, the part's own first (equal by default). `fisher`: each value
    weighted by its Fisher information too (Matena and Raffel 2022). `task_arithmetic`: the part's
    own weights are the base, to which `factors` times the difference of each source is added
    (Ilharco et al. 2023; 1 by default, negative ones take a task away). fisher: a source of squared
    gradients for each set of weights, the part's own first: a safetensors file with the part's
    names, or a run, whose optimizer keeps their running mean (adamw).
    """
    if not sources:
        raise ValueError("sources: found none, expected other weights of the part")
    count = len(sources) + (by != "task_arithmetic")
    factors = [1.0] * count if factors is None else factors
    if len(factors) != count:
        raise ValueError(f"factors: found {len(factors)}, expected {count}")
    if (by == "fisher") != (fisher is not None):
        raise ValueError("fisher: belongs to by: fisher, one source for each set of weights")
    if fisher is not None and len(fisher) != count:
        raise ValueError(f"fisher: found {len(fisher)}, expected {count}, the part's own first")
    if by != "task_arithmetic" and sum(factors) == 0:
        raise ValueError("factors: their sum is 0; a mean needs another")
    if not context.values:
        return
    if context.load is None:
        raise ValueError("sources: there is nothing to read weights from here")
    base = {name: value.clone() for name, value in module.state_dict().items()}
    states = [context.load(source).state_dict() for source in sources]
    for source, state in zip(sources, states, strict=True):
        _check_alike(base, state, source)
    information = [_fisher(source, base, context) for source in fisher or ()]
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                others = [state[name].to(value) for state in states]
                if by == "task_arithmetic":
                    deltas = zip(factors, others, strict=True)
                    merged = base[name] + sum(f * (other - base[name]) for f, other in deltas)
                else:
                    of_each = [information[i][name] for i in range(count)] if information else None
                    merged = _mean([base[name], *others], factors, of_each)
                value.copy_(merged)


def _mean(
    values: Sequence[Tensor], factors: Sequence[float], fisher: Sequence[Tensor] | None
) -> Tensor:
    """Return the weighted mean; where no set has Fisher information, the plain one."""
    total = sum(factors)
    plain = torch.stack([f / total * v for f, v in zip(factors, values, strict=True)]).sum(0)
    if fisher is None:
        return plain
    shares = torch.stack([f * i.to(values[0]) for f, i in zip(factors, fisher, strict=True)])
    largest = shares.amax(0)
    shares = shares / torch.where(largest > 0, largest, 1)  # products of small numbers vanish
    weighted = (shares * torch.stack(list(values))).sum(0) / shares.sum(0)
    return torch.where(largest > 0, weighted, plain)


def _check_alike(base: State, state: State, source: str) -> None:
    for name in sorted(base.keys() | state.keys()):
        shapes = [tuple(s[name].shape) if name in s else "none" for s in (base, state)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"sources: {source} has {name} {shapes[1]}, the part {shapes[0]}")


def _fisher(source: str, base: State, context: TransformContext) -> dict[str, Tensor]:
    """Return the squared gradients of every tensor of a part, zero for what did not train."""
    path, _, name = source.partition(":")
    if Path(source).is_file():
        known: Mapping[str, Tensor] = load_file(source)
    else:
        files = sorted(Path(path).glob("checkpoints/step-*/optimizer.safetensors"))
        if not files:
            raise ValueError(
                f"fisher: {source} is no safetensors file and no run with a checkpoint of its "
                "optimizer"
            )
        known = _moments(
            load_file(files[-1]), context.where.renamed(name) if name else context.where
        )
    if not set(known) & set(base):
        raise ValueError(f"fisher: {source} holds no squared gradients of the part")
    for key, value in known.items():
        if key in base and value.shape != base[key].shape:
            raise ValueError(
                f"fisher: {source} has {key} {tuple(value.shape)}, the part "
                f"{tuple(base[key].shape)}"
            )
    return {key: known.get(key, torch.zeros_like(value)) for key, value in base.items()}


def _moments(state: State, where: ComponentPath) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix).removesuffix(MOMENT): value
        for prefix in where.state_prefixes()
        for name, value in state.items()
        if name.startswith(prefix) and name.endswith(MOMENT)
    }
