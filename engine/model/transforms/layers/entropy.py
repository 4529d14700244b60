"""`attention_entropy`: a decoder keeps the entropy of each attention head within a band.

Jha and Reagen, "Entropy-Guided Attention for Private LLMs", 2025: every head has a threshold that
is learned, and the distance of its entropy from there is penalized beyond a margin. Entropies are
shares of the largest that a position can have, the logarithm of how many it sees, and the penalty
is a mean over positions, heads and layers: neither grows with the length of a text or the batch.

Legend: `B` rows, `H` heads, `Q` queries, `K` keys.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .....backbones.base import Backbone, ContextCache
from .....modalities.base import Features, NonNegativeFloat, Probability
from ...attention_tap import AttentionTap, normalized_entropy
from ..context import TransformContext
from .structure import configs, find_stack

HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
"""Names under which configurations keep the number of heads."""


def attention_entropy(
    module: nn.Module,
    context: TransformContext,
    *,
    weight: NonNegativeFloat = 1e-3,
    margin: Probability = 0.1,
    threshold: Probability = 0.5,
) -> None:
    """Penalize attention heads whose entropy leaves a band, and log the entropy of each head.

    weight: of the penalty, which is added to the loss of every task; 0 logs alone. margin: half the
    width of the band, as a share of the largest entropy. threshold: its middle at the start, one
    for each head, which is learned. Logged are `attention_entropy`, the penalty without its weight,
    and `entropy_LAYER.HEAD`. Raise ValueError for a part that is no decoder of one stack, and for
    one without heads of attention.
    """
    if not isinstance(module, Backbone) or module.encodes_context:
        raise ValueError(
            f"attention_entropy: found {type(module).__name__}, expected a decoder of one stack: "
            "causal, masked or diffusion"
        )
    stack = find_stack(module)
    numbers = (getattr(c, name, None) for c in configs(stack) for name in HEADS)
    heads = next((n for n in numbers if isinstance(n, int)), None)
    if heads is None:
        raise ValueError(f"attention_entropy: {type(module).__name__} has no heads of attention")
    table = next(module.parameters())
    band = torch.full((len(stack), heads), threshold, device=table.device)
    module.add_module("entropy_band", EntropyBand(band, weight, margin))
    module.register_forward_pre_hook(_watch, with_kwargs=True)
    module.register_forward_hook(_judge, with_kwargs=True, always_call=True)


class EntropyBand(nn.Module):
    """thresholds: `[layers, H]`, learned with the part."""

    def __init__(self, thresholds: Tensor, weight: float, margin: float) -> None:
        super().__init__()
        self.thresholds = nn.Parameter(thresholds, requires_grad=weight > 0)
        self.weight, self.margin = weight, margin
        self.taps: list[AttentionTap] = []  # of the forwards that run now

    def forward(
        self, weights: dict[int, list[Tensor]], lengths: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted penalty of one forward, and what to log of it.

        weights: of each layer's attention `[B, H, Q, K]`. lengths: `[B]` how many of the queries,
        which stand at the front, are no padding.
        """
        penalties: list[Tensor] = []
        logged: dict[str, Tensor] = {}
        for layer, (each, *_) in weights.items():
            share, visible = normalized_entropy(each.float())
            counted = visible > 1  # [B, 1, Q]
            if lengths is not None:
                places = torch.arange(share.shape[-1], device=share.device)
                counted = counted & (places < lengths[:, None, None])
            count = counted.sum().clamp(min=1)
            off = (share - self.thresholds[layer, :, None]).abs()
            outside = torch.where(off > self.margin, off.square(), 0.0) * counted
            penalties.append(outside.sum((0, 2)) / count)
            means = (share.detach() * counted).sum((0, 2)) / count
            logged |= {f"entropy_{layer}.{head}": mean for head, mean in enumerate(means)}
        penalty = torch.stack(penalties).mean()
        return self.weight * penalty, {"attention_entropy": penalty.detach(), **logged}


def _watch(module: Any, args: Any, kwargs: Any) -> None:
    """Record the attention of a forward that trains."""
    blocks = module.blocks()
    if any(getattr(block, "runs_again", False) for block in blocks):
        raise ValueError(
            "attention_entropy: sees no attention that runs again in the backward; set "
            "train.activation_checkpointing: false"
        )
    embeds = args[0] if args else kwargs["embeds"]
    if not torch.is_grad_enabled() or embeds.device.type == "meta":
        return
    tap = AttentionTap(blocks, detach=module.entropy_band.weight == 0)
    module.entropy_band.taps.append(tap.__enter__())


def _judge(module: Any, args: Any, kwargs: Any, output: Any) -> None:
    band = module.entropy_band
    if not band.taps:
        return
    tap = band.taps.pop()
    tap.__exit__(None, None, None)
    if output is None:  # the forward raised
        return
    if not tap.seen.weights:
        raise ValueError(
            f"attention_entropy: {type(module).__name__} computes no attention that can be seen "
            "(it has none, or its layers are compiled); take the transform out"
        )
    module.auxiliary.append(band(tap.seen.weights, _lengths(args, kwargs)))


def _lengths(args: Any, kwargs: Any) -> Tensor | None:
    """Return how many positions of each row are real; None if all are."""
    given = {**dict(zip(("embeds", "mask", "context"), args, strict=False)), **kwargs}
    mask, context = given.get("mask"), given.get("context")
    if isinstance(context, Features):
        own = given["embeds"].shape[1] if mask is None else mask.sum(1)
        return context.mask.sum(1) + own
    assert context is None or isinstance(context, ContextCache)
    return None if mask is None else mask.sum(1)
