"""LoRA on weights that a model reads without calling the module that holds them.

`nn.MultiheadAttention` keeps the projections of queries, keys and values in one parameter and
reads `out_proj.weight` itself; EVA and BEiT of timm read `qkv.weight`. peft adds its update to what
a module returns, so that there it would never be used. Here the weight that is read is the
adapted one.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import Linear, LoraLayer
from peft.tuners.lora.layer import Conv1d, Conv2d, Conv3d
from torch import Tensor, nn
from torch.func import functional_call


class ReadableLinear(Linear):
    """A linear map whose `weight` is the adapted weight, for models that read it."""

    @property
    def weight(self) -> Tensor:
        return adapted_weight(self, self.get_base_layer().weight)


class AttentionProjections(nn.Module, LoraLayer):
    """`nn.MultiheadAttention` with an update of `in_proj_weight` and one of `out_proj.weight`."""

    def __init__(
        self,
        base_layer: nn.MultiheadAttention,
        adapter_name: str,
        config: LoraConfig,
        r: int = 0,
        lora_alpha: int = 1,
        **options: Any,
    ) -> None:
        if config.use_dora or config.lora_dropout:
            raise ValueError("use_dora, lora_dropout: do not work on nn.MultiheadAttention")
        super().__init__()
        LoraLayer.__init__(self, base_layer, **options)
        self.fan_in_fan_out = False
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, r, lora_alpha=lora_alpha, config=config, **options)
        base_layer.out_proj = ReadableLinear(
            base_layer.out_proj, adapter_name, config=config, r=r, lora_alpha=lora_alpha, **options
        )

    def __getattr__(self, name: str) -> Any:
        """Attributes of the attention: layers around it read them."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_layer"), name)

    @property
    def in_proj_weight(self) -> Tensor:
        return adapted_weight(self, self.base_layer.in_proj_weight)

    def get_delta_weight(self, adapter: str) -> Tensor:
        delta: Tensor = Linear.get_delta_weight(self, adapter)
        return delta

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The attention's own forward over the adapted weight."""
        weights = {"in_proj_weight": self.in_proj_weight}
        return functional_call(self.base_layer, weights, args, kwargs)

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """Return the attention alone, with the updates added to its weights if `merge` is true."""
        attention = self.base_layer
        if merge:
            attention.in_proj_weight.data = self.in_proj_weight.data
            attention.out_proj.merge(safe_merge=safe_merge, adapter_names=adapter_names)
        attention.out_proj = attention.out_proj.get_base_layer()
        return attention


class _Convolution:
    """The update of a convolution's weight, for one axis, two or three: peft's is that of two."""

    lora_A: Any
    lora_B: Any
    scaling: Any

    def get_delta_weight(self, adapter: str) -> Tensor:
        down, up = self.lora_A[adapter].weight, self.lora_B[adapter].weight  # [r, I, *], [O, r, 1*]
        return self.scaling[adapter] * torch.einsum("or,ri...->oi...", up.flatten(1), down)


class Convolution1d(_Convolution, Conv1d):
    """`nn.Conv1d` with an update that can be merged."""


class Convolution2d(_Convolution, Conv2d):
    """`nn.Conv2d` with an update that can be merged."""


class Convolution3d(_Convolution, Conv3d):
    """`nn.Conv3d` with an update that can be merged."""


def adapted_weight(layer: LoraLayer, weight: Tensor) -> Tensor:
    """Return a weight with the updates of the active adapters."""
    if layer.merged or layer.disable_adapters:
        return weight
    for adapter in layer.active_adapters:
        if adapter in layer.lora_A:
            weight = weight + layer.get_delta_weight(adapter).to(weight.dtype)
    return weight


LAYERS = {
    nn.MultiheadAttention: AttentionProjections,
    nn.Linear: ReadableLinear,
    nn.Conv1d: Convolution1d,
    nn.Conv2d: Convolution2d,
    nn.Conv3d: Convolution3d,
}
"""What adapts a module, in place of peft's own layers."""
