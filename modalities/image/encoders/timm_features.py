"""The output of a timm model of any family as `Features`.

Transformers return a sequence that begins with CLS and register tokens, convolutional models a
map `[B, D, h, w]`, some a map with the width last; `feature_info` has each layer's stride.

Legend: `B` batch, `T` tokens, `D` width, `h`, `w` tokens of the grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ...base import Features
from .grid import Size, fit, from_map

PLAIN = (Beit, Eva, VisionTransformer)
"""Families whose blocks all see the same tokens: hooks and token masks have one meaning there."""

MAPPED = {
    "CrossVit": True,  # two branches of two widths: the second one's tokens
    "EfficientViM": True,  # a list of stages
    "Hiera": False,  # its sequence need not be in the order of space
    "PoolingVisionTransformer": False,  # the class token alone
}
"""Families whose `forward_features` returns no tokens in order, but `forward_intermediates` does;
True where that one can apply the final norm."""


def width(model: Any, layer: int | None = None) -> int:
    """Return the width of the tokens, or of those of a hidden layer."""
    if layer is not None or type(model).__name__ in MAPPED:
        return int(model.feature_info[-1 if layer is None else layer]["num_chs"])
    return int(model.num_features)


def encode(model: Any, pixels: Tensor, hidden_states: Sequence[int] = ()) -> Features:
    """pixels `[B, C, H, W]` -> the last layer's Features, and those of the layers `hidden_states`.

    pooled: the class token; without one, the output of its own pooling, where it keeps `D`.
    """
    if type(model).__name__ in MAPPED:
        features = _mapped(model, pixels)
        return features.replace(
            hidden_states=hidden(model, pixels, hidden_states) if hidden_states else ()
        )
    size = (pixels.shape[2], pixels.shape[3])
    if not hidden_states:
        return _read(model, model.forward_features(pixels), size)
    order = _order(model, hidden_states)
    final, maps = model.forward_intermediates(pixels, indices=sorted(set(order)))
    return _read(model, final, size).replace(hidden_states=_layers(model, maps, order, size))


def hidden(model: Any, pixels: Tensor, hidden_states: Sequence[int]) -> tuple[Features, ...]:
    """Return the Features of hidden layers alone; what lies behind the last of them is not run."""
    order = _order(model, hidden_states)
    maps = model.forward_intermediates(
        pixels, indices=sorted(set(order)), intermediates_only=True, stop_early=True
    )
    return _layers(model, maps, order, (pixels.shape[2], pixels.shape[3]))


def blocks(model: Any) -> Sequence[nn.Module]:
    """Return the layers from input to output: the blocks of a transformer, else the stages."""
    for name in ("blocks", "stages", "layers"):
        layers = getattr(model, name, None)
        if isinstance(layers, (nn.Sequential, nn.ModuleList)) and len(layers) > 1:
            return list(layers)
    modules = dict(model.named_modules())
    names = [info["module"] for info in model.feature_info if info["module"] in modules]
    if not names:
        lists = [m for m in modules.values() if isinstance(m, (nn.Sequential, nn.ModuleList))]
        return list(max(lists, key=len, default=()))
    if all(any(True for _ in modules[name].parameters()) for name in names):
        return [modules[name] for name in names]
    return _children(modules, names)


def _children(modules: Mapping[str, nn.Module], names: Sequence[str]) -> list[nn.Module]:
    """Return the layers of a network whose stages end in modules without parameters (an
    activation): the modules next to them in the innermost module around all, composite ones
    first."""
    paths = [name.split(".")[:-1] for name in names]
    depth = next(
        (d for d, parts in enumerate(zip(*paths, strict=False)) if len(set(parts)) > 1),
        min(map(len, paths)),
    )
    around = modules[".".join(paths[0][:depth])]
    children = [m for m in around.children() if any(True for _ in m.parameters())]
    composite = [m for m in children if any(True for _ in m.children())]
    return composite if len(composite) > 1 else children


def _order(model: Any, hidden_states: Sequence[int]) -> list[int]:
    count = len(model.feature_info)
    for layer in hidden_states:
        if not -count <= layer < count:
            raise ValueError(f"timm: layer {layer} of {type(model).__name__}, which has {count}")
    return [layer % count for layer in hidden_states]


def _layers(
    model: Any, maps: Sequence[Tensor], order: Sequence[int], size: Size
) -> tuple[Features, ...]:
    map_of = dict(zip(sorted(set(order)), maps, strict=True))
    strides = [int(info["reduction"]) for info in model.feature_info]
    return tuple(from_map(map_of[i], size, strides[i]) for i in order)


def _mapped(model: Any, pixels: Tensor) -> Features:
    last = [len(model.feature_info) - 1]
    norm = MAPPED[type(model).__name__]
    final, maps = model.forward_intermediates(pixels, indices=last, norm=norm)
    size, stride = (pixels.shape[2], pixels.shape[3]), model.feature_info[-1]["reduction"]
    pooled = None
    if isinstance(final, Tensor):
        pooled = final[:, 0] if final.shape[1] == 1 else _head(model, final)
    return from_map(maps[0], size, stride, pooled=pooled)


def _read(model: Any, final: Any, size: Size) -> Features:
    """What `forward_features` gave -> Features: drop leading tokens, find the grid."""
    stride = int(model.feature_info[-1]["reduction"])
    if isinstance(final, Tensor) and final.ndim == 4:
        nhwc = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
        feature_map = final.permute(0, 3, 1, 2) if nhwc else final
        return from_map(feature_map, size, stride, pooled=_head(model, final))
    leading = getattr(model, "num_prefix_tokens", None)
    if isinstance(final, Tensor) and final.ndim == 3:
        fitted = fit(final.shape[1], size, stride, (0, 1) if leading is None else (leading,))
        if fitted is not None:
            grid, prefix = fitted
            pooled = final[:, 0] if prefix and _class_token(model) else _head(model, final)
            feature_map = final[:, prefix:].transpose(1, 2).unflatten(2, grid)
            return from_map(feature_map, size, stride, pooled=pooled)
    shapes = [tuple(f.shape) for f in ([final] if isinstance(final, Tensor) else final)]
    raise ValueError(
        f"timm: {type(model).__name__} returns {shapes} for {size[0]} x {size[1]} px, which are "
        f"not tokens of a grid of stride {stride}; choose a size that it divides, or another model"
    )


def _class_token(model: Any) -> bool:
    """Return whether the first of the leading tokens is a class token, not a register."""
    if getattr(model, "num_prefix_tokens", None) is None:
        return True  # the families that do not count their leading tokens have only that one
    return bool(getattr(model, "has_class_token", getattr(model, "cls_token", None) is not None))


def _head(model: Any, final: Tensor) -> Tensor | None:
    if getattr(model, "head_hidden_size", None) != model.num_features:
        return None  # the head widens the pooled vector
    pooled = model.forward_head(final, pre_logits=True)
    return pooled if pooled.ndim == 2 and pooled.shape[1] == model.num_features else None
