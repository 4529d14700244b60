"""The attention weights of a running network, seen or muted head by head.

Attention is taken where torch computes it (`scaled_dot_product_attention`, or the softmax of an
eager one), so that a tap needs no knowledge of the library that wrote the model.

Legend: `B` rows, `H` heads, `Q` queries, `K` keys.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Head = tuple[int, int]
"""Layer and head, both from 0."""


@dataclass
class Attentions:
    """weights: by layer the weights `[B, H, Q, K]` of each attention in it, in order of execution;
    of an encoder-decoder the second one is the cross-attention."""

    weights: dict[int, list[Tensor]] = field(default_factory=dict)


class AttentionTap(TorchFunctionMode):
    """While active: records the attention weights within blocks, and mutes heads.

    blocks: the layers, see `Encoder.blocks`. muted: heads whose output is zero. record: whether
    weights are kept. detach: whether they are kept without their graph.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        muted: Collection[Head] = (),
        record: bool = True,
        detach: bool = True,
    ) -> None:
        super().__init__()
        self.blocks, self.record, self.detach = list(blocks), record, detach
        self.muted = {layer: [h for at, h in muted if at == layer] for layer, _ in muted}
        self.seen = Attentions()
        self.heads: dict[int, int] = {}
        self.layer: int | None = None
        self._handles: list[Any] = []
        self._fast = True

    def __enter__(self) -> AttentionTap:
        for number, block in enumerate(self.blocks):
            self._handles.append(block.register_forward_pre_hook(self._entering(number)))
            self._handles.append(block.register_forward_hook(self._left, always_call=True))
        self._fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # it is one call, with no weights to see
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.backends.mha.set_fastpath_enabled(self._fast)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _entering(self, number: int) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self.layer = number

        return enter

    def _left(self, *_: Any) -> None:
        self.layer = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.layer is not None and func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            with _replaced(self._attend if self.layer is not None else None):
                return func(*args, **kwargs)
        out = func(*args, **kwargs)
        if self.layer is not None and func in _SOFTMAX and _is_attention(out, args, kwargs):
            return self._muting(out, 1) if self._keep(out) else out
        return out

    def _attend(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.record:
            self._keep(attention_weights(*args, **kwargs))
        out: Tensor = _attention(*args, **kwargs)
        self.heads[self.layer or 0] = out.shape[-3]
        return self._muting(out, out.ndim - 3)

    def _keep(self, weights: Tensor) -> bool:
        assert self.layer is not None
        self.heads[self.layer] = weights.shape[-3]
        if self.record:
            kept = weights.detach() if self.detach else weights
            self.seen.weights.setdefault(self.layer, []).append(kept)
        return True

    def _muting(self, values: Tensor, axis: int) -> Tensor:
        """Return values with the muted heads of this layer zero along an axis."""
        muted = self.muted.get(self.layer if self.layer is not None else -1)
        if not muted:
            return values
        heads = values.shape[axis]
        if max(muted) >= heads:
            raise ValueError(f"head: found {max(muted)}; layer {self.layer} has {heads} heads")
        keep = values.new_ones(heads)
        keep[muted] = 0
        return values * keep.view(heads, *(1,) * (values.ndim - axis - 1))


_attention = F.scaled_dot_product_attention
_SIGNATURE = inspect.Signature(
    [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
        for name, default in (
            ("query", None),
            ("key", None),
            ("value", None),
            ("attn_mask", None),
            ("dropout_p", 0.0),
            ("is_causal", False),
            ("scale", None),
            ("enable_gqa", False),
        )
    ]
)
_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)


def attention_weights(*args: Any, **kwargs: Any) -> Tensor:
    """Return the weights `[B, H, Q, K]` of the arguments of `scaled_dot_product_attention`."""
    call = _SIGNATURE.bind(*args, **kwargs)
    call.apply_defaults()
    query, key, _, mask, _, causal, scale, grouped = call.args
    if grouped:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = query @ key.transpose(-2, -1) * (scale or 1 / math.sqrt(query.shape[-1]))
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        lowest = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores + mask
    return scores.float().softmax(-1)


def normalized_entropy(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the entropy `[B, H, Q]` of attention weights as a share of the largest that a position
    can have, the logarithm of how many positions it sees, and that number `[B, 1, Q]`, at least 1.

    weights: `[B, H, Q, K]`. A position that sees one alone has the entropy 0.
    """
    visible = (weights > 0).any(1, keepdim=True).sum(-1).clamp(min=1)
    tiny = torch.finfo(weights.dtype).tiny  # of a weight of 0 the gradient is finite
    entropy = -(weights * weights.clamp(min=tiny).log()).sum(-1)
    return entropy / visible.to(weights.dtype).log().clamp(min=1e-12), visible


def _is_attention(out: Any, args: Any, kwargs: Any) -> bool:
    """Return whether a softmax is that of an attention: over the last of four axes."""
    axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
    return isinstance(out, Tensor) and out.ndim == 4 and axis in (-1, 3)


@contextlib.contextmanager
def _replaced(function: Callable[..., Tensor] | None) -> Iterator[None]:
    """Within torch's own multi-head attention, which hides its inner call from a mode."""
    if function is None:
        yield
        return
    F.scaled_dot_product_attention = function
    try:
        yield
    finally:
        F.scaled_dot_product_attention = _attention
