"""Building MONAI's networks, and finding the maps of features that they make.

Legend: `B` batch, `C` contrasts, `D` width, `X Y Z` voxels, `x y z` places of a map, `N` tokens.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from typing import Any, NamedTuple

import torch
from monai.networks import nets
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ...messages import did_you_mean

Size = tuple[int, int, int]
CHANNELS = ("in_channels", "n_input_channels")
"""What MONAI calls the number of channels that come in."""


class Map(NamedTuple):
    """What a module makes: the width and the grid of its map. leading: tokens before the map's.
    run: in which of its runs it makes it, from 1, if it runs several times in a forward."""

    dim: int
    grid: Size
    leading: int = 0
    run: int = 1


def build(name: str, options: dict[str, Any], contrasts: int) -> nn.Module:
    """Return a network of MONAI without weights. Raise ValueError if it cannot be built."""
    network = getattr(nets, name, None)
    if network is None or not callable(network):
        classes = [key for key, value in vars(nets).items() if callable(value)]
        raise ValueError(f"name: MONAI has no network {name!r}{did_you_mean(name, classes)}")
    arguments = inspect.signature(network).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in arguments.values())
    arguments_of_network: dict[str, Any] = (
        {"spatial_dims": 3} if open_ended or "spatial_dims" in arguments else {}
    )
    if "out_channels" in arguments:  # what comes out at the end is not used
        arguments_of_network["out_channels"] = 1
    channels = [key for key in CHANNELS if key in arguments]
    if not channels and open_ended:  # handed on to a class that takes one of them
        channels = [*CHANNELS]
    error: Exception | None = None
    for key in channels or [""]:
        try:
            return _built(
                network, {**arguments_of_network, **({key: contrasts} if key else {}), **options}
            )
        except (TypeError, ValueError, RuntimeError, AttributeError) as failure:
            if error is None or f"'{key}'" not in str(failure):  # else it is not called so here
                error = failure
    text = " ".join(str(error).split())
    raise ValueError(f"options: MONAI cannot build {name} with {options}: {text}") from error


def _built(network: Any, options: dict[str, Any]) -> nn.Module:
    """Build on the current device; what cannot be built on meta comes there from the CPU."""
    device = torch.empty(0).device
    try:
        model: nn.Module = network(**options)
    except (RuntimeError, NotImplementedError):
        if device.type != "meta":
            raise
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            model = network(**options).to("meta")
    return model


class _RandomNumbers(TorchDispatchMode):
    """Notes whether random numbers were drawn."""

    drawn = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.drawn = self.drawn or torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


def find_maps(model: nn.Module, contrasts: int, size: Size, name: str) -> dict[str, Map]:
    """Return, in the order of running, the outputs of modules that are a map `[1, D, x, y, z]` or
    the tokens `[1, N, D]` of one, except those that depend on random numbers.

    model: in `eval()`, on the meta device.
    """
    maps: dict[str, Map] = {}
    random = _RandomNumbers()
    runs = Counter[str]()

    def hook_of(where: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            runs[where] += 1
            feature_map = None if random.drawn else _read(output, size, maps)
            maps.pop(where, None)
            if feature_map is not None:
                maps[where] = feature_map._replace(run=runs[where])

        return hook

    for where, module in model.named_modules():
        if where:
            module.register_forward_hook(hook_of(where))
    try:
        with random:
            model(torch.zeros(1, contrasts, *size, device="meta"))
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        if any(math.prod(m.grid) > 1 for m in maps.values()):
            return maps  # a decoder that cannot go on from the deepest map is not needed
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"size: {name} does not take volumes of {size}: {text}") from error
    return maps


def _read(output: Any, size: Size, maps: dict[str, Map]) -> Map | None:
    if not isinstance(output, Tensor) or output.shape[0] != 1:
        return None
    if output.ndim == 5:
        return Map(output.shape[1], (output.shape[2], output.shape[3], output.shape[4]))
    if output.ndim != 3:
        return None
    for leading in (0, 1):  # a class token
        grid = _grid(output.shape[1] - leading, size, maps)
        if grid is not None:
            return Map(output.shape[2], grid, leading)
    return None


def _grid(count: int, size: Size, maps: dict[str, Map]) -> Size | None:
    """Return the grid of `count` tokens: that of a map with as many places (the patches that the
    tokens were), or that of patches with equal edges."""
    for earlier in maps.values():
        if math.prod(earlier.grid) == count and not earlier.leading:
            return earlier.grid
    edge = round((math.prod(size) / count) ** (1 / 3)) if count > 0 else 0
    if edge < 1 or any(n % edge for n in size):
        return None
    x, y, z = (n // edge for n in size)
    return (x, y, z) if x * y * z == count else None
