"""MONAI's 3-D networks as encoders: the map of features that they make on their way.

Legend: `B` batch, `C` contrasts, `D` width, `X Y Z` voxels, `x y z` places of the map.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from monai.networks import nets
from torch import Tensor, nn

from ...base import Encoder, Features
from ...messages import did_you_mean
from ..processor import VolumeProcessor


class _Found(Exception):
    """The map is there; the rest of the network need not run."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


class Monai(Encoder):
    """name: a class of `monai.networks.nets` (`DenseNet121`, `resnet18`, `UNet`, ...). options:
    its own arguments; channels and dimensions are given. layer: the module whose output is taken;
    the last of those with the smallest map, if not said. size, contrasts, spacing, percentiles,
    crop: see `VolumeProcessor`.
    """

    def __init__(
        self,
        *,
        name: str,
        options: dict[str, Any] | None = None,
        layer: str | None = None,
        size: tuple[int, int, int] = (96, 96, 96),
        contrasts: int = 1,
        spacing: tuple[float, float, float] | None = None,
        percentiles: tuple[float, float] = (0.5, 99.5),
        crop: bool = True,
    ) -> None:
        super().__init__()
        self.processor: VolumeProcessor = VolumeProcessor(
            size, spacing, contrasts, percentiles, crop=crop
        )
        self.model = _network(name, options or {}, contrasts)
        with torch.device("meta"):  # where shapes cost nothing
            outline = _network(name, options or {}, contrasts).eval()
        shapes = _maps(outline, contrasts, size, name)
        self.layer = _chosen(shapes, layer, name)
        self.dim = shapes[self.layer][1]
        self._drop_unused(outline)

    def _drop_unused(self, outline: nn.Module) -> None:
        """What lies behind the map gets no gradient: it is not part of the encoder."""
        used: set[str] = set()
        for where, module in outline.named_modules():
            module.register_forward_pre_hook(lambda *_, where=where: used.add(where))
        size = (1, self.processor.contrasts, *self.processor.size)
        self._map(torch.zeros(size, device="meta"), outline)
        for where, module in self.model.named_modules():
            for name, _ in [] if where in used else list(module.named_parameters(recurse=False)):
                setattr(module, name, None)

    def forward(
        self, volume: Tensor, inside: Tensor, contrasts: Tensor, affine: Tensor
    ) -> Features:
        """volume `[B, C, X, Y, Z]` -> Features `[B, x y z, D]`; `step` and `origin` in voxels."""
        found = self._map(volume * contrasts[:, :, None, None, None], self.model)
        grid = (found.shape[2], found.shape[3], found.shape[4])
        step = tuple(n / count for n, count in zip(volume.shape[2:], grid, strict=True))
        return Features.dense(
            found.flatten(2).transpose(1, 2),
            grid=grid,
            spacing=step,
            origin=tuple((s - 1) / 2 for s in step),
            affine=affine,
        )

    def _map(self, volume: Tensor, model: nn.Module) -> Tensor:
        def stop(module: nn.Module, args: Any, output: Tensor) -> None:
            raise _Found(output)

        hook = model.get_submodule(self.layer).register_forward_hook(stop)
        try:
            model(volume)
        except _Found as found:
            return found.features
        finally:
            hook.remove()
        raise ValueError(f"layer: {self.layer} did not run")


def _network(name: str, options: dict[str, Any], contrasts: int) -> nn.Module:
    kind = getattr(nets, name, None)
    if kind is None or not callable(kind):
        classes = [key for key, value in vars(nets).items() if callable(value)]
        raise ValueError(f"name: MONAI has no network {name!r}{did_you_mean(name, classes)}")
    given = {"spatial_dims": 3, "in_channels": contrasts, "n_input_channels": contrasts}
    takes = dict(inspect.signature(kind).parameters)
    handed_on = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    if handed_on and "in_channels" not in takes:  # resnet18 and its like hand keywords on
        takes |= inspect.signature(nets.ResNet).parameters
    known = {key: value for key, value in given.items() if key in takes}
    if "out_channels" in takes:  # what comes out at the end is not used
        known["out_channels"] = 1
    try:
        found: nn.Module = kind(**{**known, **options})
    except (TypeError, ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"options: MONAI cannot build {name} with {options}: {text}") from error
    return found


def _maps(
    model: nn.Module, contrasts: int, size: tuple[int, int, int], name: str
) -> dict[str, torch.Size]:
    """Of each module that gives a map `[1, D, x, y, z]`, its shape, in the order of running."""
    shapes: dict[str, torch.Size] = {}

    def note(where: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 5:
                shapes.pop(where, None)
                shapes[where] = output.shape

        return hook

    for where, module in model.named_modules():
        if where:
            module.register_forward_hook(note(where))
    try:
        model.eval()(torch.zeros(1, contrasts, *size, device="meta"))
    except (RuntimeError, ValueError, TypeError) as error:
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"size: {name} does not take volumes of {size}: {text}") from error
    return shapes


def _chosen(shapes: dict[str, torch.Size], layer: str | None, name: str) -> str:
    if layer is not None:
        if layer not in shapes:
            near = did_you_mean(layer, shapes)
            raise ValueError(f"layer: {name} makes no map at {layer!r}{near}")
        return layer
    maps = {w: s for w, s in shapes.items() if s[2:].numel() > 1}
    if not maps:
        raise ValueError(f"name: {name} makes no map of features; a convolutional one does")
    least = min(s[2:].numel() for s in maps.values())
    return [w for w, s in maps.items() if s[2:].numel() == least][-1]
