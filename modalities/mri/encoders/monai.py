"""MONAI's 3-D networks as encoders: the map of features that they make on their way.

Legend: `B` batch, `C` contrasts, `D` width, `X Y Z` voxels, `x y z` places of the map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...base import Encoder, Features, PositiveFloat, PositiveInt
from ...messages import did_you_mean
from ..processor import VolumeProcessor
from .monai_maps import Map, build, find_maps


class _Reached(Exception):
    """The map is there; the rest of the network need not run."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


class Monai(Encoder):
    """name: a class of `monai.networks.nets` (`DenseNet121`, `resnet18`, `UNet`, `ViT`, ...).
    options: its arguments; channels and dimensions are set here. layer: the module whose output is
    taken: a map, or tokens of a grid; by default the last of those with the smallest map. size,
    contrasts, spacing, percentiles, crop: see `VolumeProcessor`.
    """

    def __init__(
        self,
        *,
        name: str,
        options: dict[str, Any] | None = None,
        layer: str | None = None,
        size: tuple[PositiveInt, PositiveInt, PositiveInt] = (96, 96, 96),
        contrasts: PositiveInt = 1,
        spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None,
        percentiles: tuple[float, float] = (0.5, 99.5),
        crop: bool = True,
    ) -> None:
        super().__init__()
        self.processor: VolumeProcessor = VolumeProcessor(
            size, spacing, contrasts, percentiles, crop=crop
        )
        self.model = build(name, options or {}, contrasts)
        with torch.device("meta"):  # where shapes cost nothing
            outline = build(name, options or {}, contrasts).eval()
        maps = find_maps(outline, contrasts, size, name)
        self.layer = _layer(maps, layer, name)
        self.dim, self.leading = maps[self.layer].dim, maps[self.layer].leading
        self.grid, self.run = maps[self.layer].grid, maps[self.layer].run
        self.order = self._drop_unused(outline)

    def _drop_unused(self, outline: nn.Module) -> list[str]:
        """Take out what lies behind the map: it gets no gradient. Return the modules that run."""
        used: dict[str, None] = {}
        for where, module in outline.named_modules():
            module.register_forward_pre_hook(lambda *_, where=where: used.setdefault(where))
        size = (1, self.processor.contrasts, *self.processor.size)
        self._output(torch.zeros(size, device="meta"), outline)
        for where, module in self.model.named_modules():
            for name, _ in [] if where in used else list(module.named_parameters(recurse=False)):
                setattr(module, name, None)
        return list(used)

    def blocks(self) -> Sequence[nn.Module]:
        """Return the stages of the network, in the order in which they run."""
        parent = self.model
        while (
            len(stages := [c for c in parent.children() if any(True for _ in c.parameters())]) == 1
        ):
            parent = stages[0]
        layers: list[nn.Module] = []
        for stage in stages:
            layers += stage if isinstance(stage, nn.ModuleList) else [stage]
        names = {id(module): name for name, module in self.model.named_modules()}
        runs = {name: index for index, name in enumerate(self.order)}
        return sorted(
            (m for m in layers if any(True for _ in m.parameters())),
            key=lambda m: runs.get(names[id(m)], len(runs)),
        )

    def forward(
        self, volume: Tensor, inside: Tensor, contrasts: Tensor, affine: Tensor
    ) -> Features:
        """volume `[B, C, X, Y, Z]` -> Features `[B, x y z, D]`, whose `spacing` and `origin` are in
        voxels."""
        output = self._output(volume * contrasts[:, :, None, None, None], self.model)
        if output.ndim == 5:
            grid = (output.shape[2], output.shape[3], output.shape[4])
            tokens = output.flatten(2).transpose(1, 2)
        else:
            grid, tokens = self.grid, output[:, self.leading :]
        spacing = tuple(n / count for n, count in zip(volume.shape[2:], grid, strict=True))
        return Features.dense(
            tokens,
            grid=grid,
            spacing=spacing,
            origin=tuple((edge - 1) / 2 for edge in spacing),
            affine=affine,
            pooled=output[:, 0] if self.leading else None,
        )

    def _output(self, volume: Tensor, model: nn.Module) -> Tensor:
        remaining = self.run

        def stop(module: nn.Module, args: Any, output: Tensor) -> None:
            nonlocal remaining
            remaining -= 1
            if not remaining:
                raise _Reached(output)

        hook = model.get_submodule(self.layer).register_forward_hook(stop)
        try:
            model(volume)
        except _Reached as reached:
            return reached.features
        finally:
            hook.remove()
        raise ValueError(f"layer: {self.layer} did not run")


def _filled(module: nn.Module) -> list[nn.Module]:
    """Return the children that have parameters."""
    return [child for child in module.children() if any(True for _ in child.parameters())]


def _layer(maps: dict[str, Map], layer: str | None, name: str) -> str:
    if layer is not None:
        if layer not in maps:
            near = did_you_mean(layer, maps)
            raise ValueError(f"layer: {name} makes no map at {layer!r}{near}")
        return layer
    several = {where: m for where, m in maps.items() if math.prod(m.grid) > 1}
    # A single channel is the network's prediction, and no feature.
    several = {where: m for where, m in several.items() if m.dim > 1} or several
    if not several:
        raise ValueError(f"name: {name} makes no map of features; a convolutional one does")
    least = min(math.prod(m.grid) for m in several.values())
    return [where for where, m in several.items() if math.prod(m.grid) == least][-1]
