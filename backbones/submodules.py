"""A model's own methods over other submodules, and access to its layers, without touching it.

`replace_submodules` returns a shallow copy of a model in which named submodules are replaced;
weights are shared, and the model itself, its state dict and its adapters stay as they are. With it
a model's own `forward` turns hidden states into logits (whatever it scales, caps or adds
on the way), and its own `generate` reads and writes ids that were added to the vocabulary.
`LayerAccess` reads, changes and masks single layers for the time of one forward.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutput

from ..modalities.base import LayerHook
from .base import HiddenStates
from .masks import Packed, Positions, additive, additive_by_layer, sliding_windows
from .visibility import Visibility


def replace_submodules(root: nn.Module, parts: Mapping[str, nn.Module]) -> nn.Module:
    """A shallow copy of `root` with the submodules at the dotted paths replaced."""
    shell = copy.copy(root)
    shell.__dict__["_modules"] = dict(root._modules)
    for path, part in parts.items():
        name, _, rest = path.partition(".")
        inner = shell._modules[name]
        if rest and inner is not None:
            part = replace_submodules(inner, {rest: part})
        shell._modules[name] = part
    return shell


def path_of(root: nn.Module, part: nn.Module) -> str:
    """The dotted path of a submodule."""
    for path, module in root.named_modules():
        if module is part:
            return path
    raise ValueError(f"{type(root).__name__} has no module {type(part).__name__}")


class _Hidden(BaseModelOutput):
    """An output that has hidden states and None for whatever else is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


class PrecomputedHidden(nn.Module):
    """Stands for a decoder that has already run: gives the same hidden states to any call."""

    def __init__(self, decoder: nn.Module, hidden: Tensor) -> None:
        super().__init__()
        self.config, self.hidden = decoder.config, hidden

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return _Hidden(last_hidden_state=self.hidden)


class ExtendedEmbedding(nn.Module):
    """An embedding with `rows [n, D]` after its own; they are scaled as it scales its own."""

    def __init__(self, table: nn.Embedding, rows: Tensor) -> None:
        super().__init__()
        self.table, self.size = table, table.num_embeddings
        more = copy.copy(table)
        more.__dict__["_parameters"] = {"weight": rows}
        more.num_embeddings, more.padding_idx = len(rows), None
        self.more = more

    @property
    def weight(self) -> Tensor:
        return self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        old = self.table(ids.clamp(max=self.size - 1))
        new = self.more((ids - self.size).clamp(min=0))
        return torch.where((ids >= self.size).unsqueeze(-1), new.to(old.dtype), old)


class ExtendedLMHead(nn.Module):
    """An output layer with `rows [n, D]` after its own, all rows or those of `ids [k]`."""

    def __init__(self, head: nn.Module, rows: Tensor | None, ids: Tensor | None = None) -> None:
        super().__init__()
        self.head, self.rows, self.ids = head, rows, ids

    @property
    def weight(self) -> Any:
        return self.head.weight

    def forward(self, hidden: Tensor) -> Tensor:
        if self.ids is not None and isinstance(self.head, nn.Linear):
            return self._some(hidden, self.head, self.ids)
        logits = self.head(hidden)
        if self.rows is not None:
            new = F.linear(hidden, self.rows.to(hidden.dtype))
            logits = torch.cat([logits, new.to(logits.dtype)], dim=-1)
        # An adapted head is no plain matrix: its rows are chosen after the product.
        return logits if self.ids is None else logits[..., self.ids]

    def _some(self, hidden: Tensor, head: nn.Linear, ids: Tensor) -> Tensor:
        if self.rows is None:
            return F.linear(hidden, head.weight[ids], None if head.bias is None else head.bias[ids])
        size = head.weight.shape[0]
        new, old = ids >= size, ids.clamp(max=size - 1)
        more = self.rows[(ids - size).clamp(min=0)].to(head.weight.dtype)
        weight = torch.where(new[:, None], more, head.weight[old])
        bias = None if head.bias is None else head.bias[old].masked_fill(new, 0)
        return F.linear(hidden, weight, bias)


class LayerAccess:
    """What one forward does at single layers: hooks, hidden states, masks of their own.

    packed: the row that the layers run on; mask: which of its embeds are real (None: all). hooks:
    `{layer: LayerHook}`. wanted: layers whose output, behind its hook, is returned. Layers count
    from 0, or from the end (-1).
    """

    def __init__(
        self,
        kind: str,
        layers: Sequence[nn.Module],
        packed: Packed,
        mask: Tensor | None = None,
        hooks: Mapping[int, LayerHook] | None = None,
        wanted: Sequence[int] = (),
    ) -> None:
        self.kind, self.layers, self.packed, self.mask = kind, layers, packed, mask
        self.hooks = {self.index(i): hook for i, hook in (hooks or {}).items()}
        self.wanted = [self.index(i) for i in wanted]
        self.outputs: dict[int, Tensor] = {}

    def index(self, layer: int) -> int:
        count = len(self.layers)
        if not -count <= layer < count:
            raise ValueError(f"{self.kind}: found layer {layer}, expected one of {count} layers")
        return layer % count

    def output(self, hidden: Tensor) -> Tensor | HiddenStates:
        """Return what a forward returns, from the packed hidden states of the last layer."""
        last = self.packed.unpack(hidden)
        if not self.wanted:
            return last
        states = {i: self.packed.unpack(state) for i, state in self.outputs.items()}
        states[len(self.layers) - 1] = last
        return last, tuple(states[i] for i in self.wanted)

    @contextmanager
    def attached(
        self, masks: Mapping[int, Tensor] | None = None, shared: Sequence[Tensor] = ()
    ) -> Iterator[None]:
        """Attach it for one forward. masks: `{layer: additive mask}`, from 0, in place of those in
        `shared`, which the model hands to its layers."""
        handles = []
        for i in {*self.hooks, *self.wanted}:
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
            if i in self.wanted:
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
                raise ValueError(f"{self.kind}: layer {i} takes no mask of its own")
            args = tuple(mask if is_shared(value) else value for value in args)
            return args, {k: mask if is_shared(value) else value for k, value in kwargs.items()}

        return hook


def run_masked(
    stack: nn.Module,
    config: Any,
    tokens: Tensor,
    query: Positions,
    key: Positions,
    visibility: Visibility,
    access: LayerAccess,
    **inputs: Any,
) -> Tensor:
    """Run a stack of layers on `tokens [B, Q, D]`; return its last hidden states.

    The visibility's masks stand as the queries and keys do.
    """
    mask = additive(visibility, query, key, sliding_windows(config), tokens.dtype)
    shared = list(mask.values()) if isinstance(mask, dict) else [mask]
    layers = {access.index(i): inner for i, inner in visibility.layers.items()}
    by_layer = additive_by_layer(layers, query, key, config, tokens.dtype)
    with access.attached(by_layer, shared):
        out = stack(inputs_embeds=tokens, attention_mask=mask, **inputs)
    found: Tensor = out.last_hidden_state
    return found


def layers_of(stack: nn.Module) -> Sequence[nn.Module]:
    """Return the layers of a stack from input to output; empty if it holds no list of modules."""
    lists = [list(child) for child in stack.children() if isinstance(child, nn.ModuleList)]
    return max(lists, key=len, default=[])
