"""Access to the layers of a stack for the time of one forward: hooks, hidden states, masks.

Legend: `B` batch, `N` positions of a packed row, `Q` queries, `K` keys, `T` embeds, `D` width.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ...modalities.base import LayerHook
from ..base import HiddenStates
from ..visibility import Visibility
from .masks import Packed, Positions, Windows, additive, additive_by_layer


class LayerAccess:
    """Hooks, hidden states and masks of single layers for one forward.

    packed: the row that the layers run on; mask: which of its embeds are real (None: all). hooks:
    `{layer: LayerHook}`. requested: layers whose output, after its hook, is returned. Layers count
    from 0, or from the end (-1).
    """

    def __init__(
        self,
        kind: str,
        layers: Sequence[nn.Module],
        packed: Packed,
        mask: Tensor | None = None,
        hooks: Mapping[int, LayerHook] | None = None,
        requested: Sequence[int] = (),
    ) -> None:
        self.kind, self.layers, self.packed, self.mask = kind, layers, packed, mask
        self.hooks = {self.index(i): hook for i, hook in (hooks or {}).items()}
        self.requested = [self.index(i) for i in requested]
        self.outputs: dict[int, Tensor] = {}

    def index(self, layer: int) -> int:
        count = len(self.layers)
        if not -count <= layer < count:
            raise ValueError(f"{self.kind}: found layer {layer}, expected one of {count} layers")
        return layer % count

    def output(self, hidden: Tensor) -> Tensor | HiddenStates:
        """Return the output of a forward, from the packed hidden states of the last layer."""
        last = self.packed.unpack(hidden)
        if not self.requested:
            return last
        states = {i: self.packed.unpack(state) for i, state in self.outputs.items()}
        states[len(self.layers) - 1] = last
        return last, tuple(states[i] for i in self.requested)

    @contextmanager
    def attached(
        self, masks: Mapping[int, Tensor] | None = None, shared: Sequence[Tensor] = ()
    ) -> Iterator[None]:
        """Attach it for one forward. masks: `{layer: additive mask}`, from 0, in place of those in
        `shared`, which the model hands to its layers."""
        handles = []
        for i in {*self.hooks, *self.requested}:
            handles.append(self.layers[i].register_forward_hook(self._output_hook(i)))
        for i, mask in (masks or {}).items():
            hook = self._mask_hook(i, mask, shared)
            handles.append(self.layers[i].register_forward_pre_hook(hook, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _output_hook(self, i: int) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            if i in self.hooks:
                hidden = self._changed(hidden, self.hooks[i])
            if i in self.requested:
                self.outputs[i] = hidden
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return hook

    def _changed(self, hidden: Tensor, hook: LayerHook) -> Tensor:
        """hidden `[B, N, D]` with the hook applied to the embeds' positions alone."""
        tokens, mask = self.packed.unpack(hidden), self.mask
        mask = tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask
        return self.packed.put_back(hidden, hook(tokens, mask))

    def _mask_hook(
        self, i: int, mask: Tensor, shared: Sequence[Tensor]
    ) -> Callable[[nn.Module, Any, Any], Any]:
        def is_shared(value: Any) -> bool:
            return any(value is other for other in shared)

        def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:
            if not any(is_shared(value) for value in (*args, *kwargs.values())):
                raise ValueError(f"{self.kind}: layer {i} takes no separate mask")
            args = tuple(mask if is_shared(value) else value for value in args)
            return args, {k: mask if is_shared(value) else value for k, value in kwargs.items()}

        return hook


def run_masked(
    stack: nn.Module,
    windows: Windows,
    tokens: Tensor,
    query: Positions,
    key: Positions,
    visibility: Visibility,
    access: LayerAccess,
    **inputs: Any,
) -> Any:
    """Run a stack of layers on `tokens [B, Q, D]`; return the library's output.

    The visibility's masks have the order of the queries and keys.
    """
    mask = additive(visibility, query, key, windows, tokens.dtype)
    shared = list(mask.values()) if isinstance(mask, dict) else [mask]
    layers = {access.index(i): inner for i, inner in visibility.layers.items()}
    by_layer = additive_by_layer(layers, query, key, windows, tokens.dtype)
    with access.attached(by_layer, shared):
        return stack(inputs_embeds=tokens, attention_mask=mask, **inputs)


def stack_of(model: Any) -> Any:
    """Return the stack of layers of a language model, which reads embeddings and has no head.

    `get_decoder` is not trusted: ModernBERT's is its output layer, Llama 4's the model itself.
    """
    for whole in (model.get_decoder(), model):
        if not isinstance(whole, PreTrainedModel):
            continue
        for stack in (whole, whole.get_decoder(), whole.base_model, *whole.modules()):
            is_model = isinstance(stack, PreTrainedModel)
            if not is_model or stack.get_output_embeddings() is not None:
                continue
            kind: type = type(stack)
            if _takes_embeddings(kind):
                return stack
    return model.base_model


@functools.cache
def _takes_embeddings(kind: type[nn.Module]) -> bool:
    """Whether models of a class read embeddings. Cached: each step of generation calls it."""
    return "inputs_embeds" in inspect.signature(kind.forward).parameters


def first_position(stack: nn.Module) -> int:
    """Return the position id of a stack's first token: 0, or behind the row of padding."""
    for name, table in stack.named_modules():
        if name.endswith("position_embeddings") and isinstance(table, nn.Embedding):
            return 0 if table.padding_idx is None else table.padding_idx + 1
    return 0


@contextmanager
def meta_experts(model: Any, device: torch.device) -> Iterator[None]:
    """On the meta device run a mixture of experts by batched products: grouped ones, which the
    library prefers, take bfloat16 alone there."""
    can_set = getattr(model, "_can_set_experts_implementation", None)
    if device.type != "meta" or can_set is None or not can_set():
        yield
        return
    before = model.config._experts_implementation
    model.set_experts_implementation("batched_mm")
    try:
        yield
    finally:
        model.set_experts_implementation(before)


def layers_of(stack: nn.Module) -> Sequence[nn.Module]:
    """Return the layers of a stack from input to output; empty if it holds no list of modules."""
    lists = [list(child) for child in stack.children() if isinstance(child, nn.ModuleList)]
    if lists:
        return max(lists, key=len)
    count = getattr(stack.config, "num_hidden_layers", None)
    inner = (m for m in stack.modules() if isinstance(m, nn.ModuleList) and len(m) == count)
    return list(next(inner, ()))


def untie_head(model: Any) -> None:
    """Give a model whose output table is its input table one of its own, with the same values.

    T5's configurations (transformers 5) always say that the two are one, also of checkpoints that
    hold both (T5 1.1, Flan-T5, mT5): a model built by them has no parameter for the second.
    """
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is not None and head.weight is table.weight:
        head.weight = nn.Parameter(table.weight.detach().clone(), table.weight.requires_grad)
