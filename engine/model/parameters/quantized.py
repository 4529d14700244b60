"""Linear maps whose frozen weights are held in 8 or 4 bits: a part's `quantize: int8 | int4`.

Rounding and scales are torchao's: of `Int8WeightOnlyConfig` (one scale an output), and of
`IntxWeightOnlyConfig` with groups of 32 inputs for 4 bits. The weights alone are rounded; products
are computed in the type of the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...recipe import ComponentSpec, import_optional
from ...utils import ConfigError
from .adapters import linear_names

GROUP = 32
"""Inputs that share a scale in 4 bits."""


class QuantizedLinear(nn.Linear):
    """A linear map with a frozen weight in 8 or 4 bits. weight: the values of the codes, computed
    whenever it is read. scales: of each output, or of each group of 32 inputs of each output.

    Raise ValueError for a number of inputs that groups do not divide.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, kind: str) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = weight.shape
        self.kind, self.dtype = kind, weight.dtype
        codes, scales = _quantize(weight.detach(), kind)
        self.codes = nn.Parameter(codes, requires_grad=False)
        self.scales = nn.Parameter(scales.flatten(), requires_grad=False)
        held = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.register_parameter("bias", held)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """`[O, I]`, in the type of the weight that was rounded."""
        return _dequantize(self.codes, self.scales, self.kind).to(self.dtype)

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_grad_enabled() and input.requires_grad:
            output: Tensor = _Product.apply(input, self.codes, self.scales, self.kind)
            return output if self.bias is None else output + self.bias.to(output.dtype)
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, kind={self.kind}"


class _Product(torch.autograd.Function):
    """`x W^T`, of which the backward needs no more than the codes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scales: Tensor, kind: str) -> Tensor:
        ctx.save_for_backward(codes, scales)
        ctx.kind, ctx.dtype = kind, x.dtype
        return F.linear(x, _dequantize(codes, scales, kind).to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        codes, scales = ctx.saved_tensors
        weight = _dequantize(codes, scales, ctx.kind).to(gradient.dtype)
        return (gradient @ weight).to(ctx.dtype), None, None, None


def quantize_part(module: nn.Module, plan: ComponentSpec, where: str) -> None:
    """Quantize a part whose section names it. Raise ConfigError for one that trains."""
    section = plan.section
    if section.quantize is None:
        return
    where = f"{where}.quantize"
    if section.lora is None and section.freeze is not True:
        raise ConfigError(
            f"{where}: weights in {section.quantize} cannot train; set freeze: true, or lora for "
            "adapters beside them"
        )
    quantize(module, section.quantize, where)


@torch.no_grad()
def quantize(module: nn.Module, kind: str, where: str) -> None:
    """Replace the linear maps of a part's blocks (of all of it, if it has none) by quantized ones.

    Raise ConfigError where torchao is not installed, if a part has no linear maps, or if one of
    them cannot be quantized.
    """
    names = linear_names(module)
    if not names:
        raise ConfigError(
            f"{where}: {type(module).__name__} has no linear map that could be quantized; leave "
            "it out"
        )
    new: dict[nn.Module, nn.Module] = {}
    for name in names:
        layer: Any = module.get_submodule(name)
        weight = layer.weight if isinstance(layer, nn.Linear) else layer.weight.T
        try:
            new[layer] = QuantizedLinear(weight, layer.bias, kind)
        except ValueError as error:
            raise ConfigError(f"{where}: {name} {error}") from error
    _replace(module, new)


@torch.no_grad()
def dequantize(module: nn.Module) -> None:
    """Replace the quantized linear maps of a part by plain ones with their values."""
    new: dict[nn.Module, nn.Module] = {}
    for layer in module.modules():
        if isinstance(layer, QuantizedLinear):
            plain = nn.Linear(layer.in_features, layer.out_features, device="meta")
            plain.weight = nn.Parameter(layer.weight, requires_grad=False)
            plain.bias = layer.bias
            new[layer] = plain
    _replace(module, new)


def _replace(module: nn.Module, new: Mapping[nn.Module, nn.Module]) -> None:
    """Put new modules into all places of old ones."""
    for owner in list(module.modules()):
        for name, child in list(owner._modules.items()):  # one in two places is in both
            if child is not None and child in new:
                setattr(owner, name, new[child].train(child.training))


def _quantize(weight: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Return codes, int8 `[O, I]` or two to a byte `[O, I / 2]`, and scales."""
    library = import_optional("torchao.quantization")
    weight = weight.float()
    if kind == "int8":
        per_row = import_optional("torchao.quantization.granularity").PerRow()
        rounded = library.Int8Tensor.from_hp(weight, per_row)
        return rounded.qdata, rounded.scale
    if weight.shape[1] % GROUP:
        raise ValueError(
            f"has {weight.shape[1]} inputs, and int4 takes groups of {GROUP}; set quantize: int8"
        )
    int4: Any = torch.int4  # type: ignore[attr-defined]
    rounded = library.IntxUnpackedToInt8Tensor.from_hp(weight, (1, GROUP), int4)
    low, high = (rounded.qdata.view(torch.uint8) & 15).unflatten(1, (-1, 2)).unbind(-1)
    return low | high << 4, rounded.scale


def _dequantize(codes: Tensor, scales: Tensor, kind: str) -> Tensor:
    """Return the float32 weight `[O, I]` of codes and scales."""
    if kind == "int8":
        return codes.float() * scales[:, None]
    values = torch.stack([codes & 15, codes >> 4], -1).flatten(1).to(torch.int8)
    values = torch.where(values > 7, values - 16, values).float()
    return (values.unflatten(1, (-1, GROUP)) * scales.view(len(codes), -1, 1)).flatten(1)
