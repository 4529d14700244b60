"""A model's own methods over other submodules, without touching the model.

`replace_submodules` returns a shallow copy of a model in which named submodules are replaced;
weights are shared, and the model itself, its state dict and its adapters stay unchanged. With it
a model's own `forward` turns hidden states into logits (with all that it scales, caps or adds
on the way), and its own `generate` reads and writes ids that were added to the vocabulary.

Legend: `D` width, `n` added tokens, `k` chosen ids.
"""

from __future__ import annotations

import copy
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from transformers import AutoModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from .base import LayerHook


def replace_submodules(root: nn.Module, parts: Mapping[str, nn.Module]) -> nn.Module:
    """Return a shallow copy of `root` with the submodules at the dotted paths replaced."""
    shell = copy.copy(root)
    shell.__dict__["_modules"] = dict(root._modules)
    for path, part in parts.items():
        name, _, inner_path = path.partition(".")
        inner = shell._modules[name]
        if inner_path and inner is not None:
            part = replace_submodules(inner, {inner_path: part})
        shell._modules[name] = part
    return shell


def path_of(root: nn.Module, part: nn.Module) -> str:
    """Return the dotted path of a submodule."""
    for path, module in root.named_modules():
        if module is part:
            return path
    raise ValueError(f"{type(root).__name__} has no module {type(part).__name__}")


def embeddings_of(root: nn.Module, weights: Sequence[Tensor]) -> dict[str, nn.Module]:
    """Return the embeddings over one of these weights, by their paths: with the adapter, if an
    embedding has one."""
    tables: dict[str, nn.Module] = {}
    for path, module in root.named_modules(remove_duplicate=False):
        base, inside = unwrapped(module), any(path.startswith(f"{t}.") for t in tables)
        if isinstance(base, nn.Embedding) and not inside:
            tables |= {path: module} if any(base.weight is w for w in weights) else {}
    return tables


class HiddenOutput(BaseModelOutput):
    """An output that has hidden states and None for any other attribute."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def precomputed(decoder: nn.Module, hidden: Tensor) -> nn.Module:
    """Return a shallow copy of a decoder that has already run: its attributes are the decoder's,
    and any call returns the same hidden states."""
    shell = copy.copy(decoder)
    for name in ("_forward_hooks", "_forward_pre_hooks"):
        shell.__dict__[name] = OrderedDict()
    output = HiddenOutput(last_hidden_state=hidden)
    shell.__dict__["forward"] = lambda *args, **kwargs: output
    return shell


def lacks_values(error: Exception, tensor: Tensor) -> bool:
    """Return whether an error is that of the meta device, whose tensors have no values."""
    return tensor.device.type == "meta" and "meta" in str(error)


def outline(stack: nn.Module, embeds: Tensor) -> Tensor:
    """Return hidden states of the shape of `embeds [B, T, D]` that every trained parameter of a
    stack had a part in: the rest of a forward that the meta device cannot walk."""
    trained = (p for p in stack.parameters() if p.requires_grad)
    return embeds + sum((p.sum() * 0 for p in trained), embeds.new_zeros(()))


def list_of_layers(model: nn.Module, count: int | None) -> Sequence[nn.Module]:
    """Return the `count` layers of a model from input to output; empty if it holds no list of so
    many modules. Of several lists it is the one with the most parameters: that of a position
    embedding may be as long."""
    lists = [
        list(module)
        for module in model.modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) == count
    ]

    def size(layers: Sequence[nn.Module]) -> int:
        return sum(p.numel() for layer in layers if layer is not None for p in layer.parameters())

    return max(lists, key=size, default=[])


def unreached(model: nn.Module, output: Tensor) -> frozenset[str]:
    """Return the names of the parameters that an output does not depend on, `#` for each number."""
    output.float().sum().backward()
    every = [(_numberless(name), p.grad is None) for name, p in model.named_parameters()]
    model.zero_grad(set_to_none=True)
    return frozenset(n for n, dead in every if dead) - {n for n, dead in every if not dead}


def freeze_unreached(model: nn.Module, names: frozenset[str]) -> None:
    """Freeze what `unreached` returned for a model of the same kind."""
    for parameter in (p for name, p in model.named_parameters() if _numberless(name) in names):
        parameter.requires_grad_(False)


def _numberless(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module itself, or the one that it was before peft adapted or copied it."""
    for name in ("base_layer", "original_module"):
        if isinstance(inner := getattr(module, name, None), nn.Module):
            return unwrapped(inner)
    return module


class ExtendedEmbedding(nn.Module):
    """An embedding, adapted or not, with `rows [n, D]` after its own; they are scaled as it scales
    its own."""

    def __init__(self, table: nn.Module, rows: Tensor) -> None:
        super().__init__()
        base: Any = unwrapped(table)
        self.table, self.size = table, base.weight.shape[0]
        added_rows = copy.copy(base)
        if parametrize.is_parametrized(base):  # its rows are computed, these are not
            added_rows.__class__ = type(base).__bases__[0]
            added_rows.__dict__["_modules"] = {}
        added_rows.__dict__["_parameters"] = {**base._parameters, "weight": rows}
        added_rows.num_embeddings, added_rows.padding_idx = len(rows), None
        self.more = added_rows

    @property
    def weight(self) -> Tensor:
        return cast(Tensor, self.table.weight)

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
            return self._logits_of(hidden, self.head, self.ids)
        logits = self.head(hidden)
        if self.rows is not None:
            new = F.linear(hidden, self.rows.to(hidden.dtype))
            logits = torch.cat([logits, new.to(logits.dtype)], dim=-1)
        # An adapted head is no plain matrix: its rows are chosen after the product.
        return logits if self.ids is None else logits[..., self.ids]

    def _logits_of(self, hidden: Tensor, head: nn.Linear, ids: Tensor) -> Tensor:
        if self.rows is None:
            return F.linear(hidden, head.weight[ids], None if head.bias is None else head.bias[ids])
        size = head.weight.shape[0]
        new, old = ids >= size, ids.clamp(max=size - 1)
        added_rows = self.rows[(ids - size).clamp(min=0)].to(head.weight.dtype)
        weight = torch.where(new[:, None], added_rows, head.weight[old])
        bias = None if head.bias is None else head.bias[old].masked_fill(new, 0)
        return F.linear(hidden, weight, bias)


@contextmanager
def hooked(
    blocks: Sequence[nn.Module],
    layer_hooks: Mapping[int, LayerHook] | None,
    prefix: int,
    mask: Tensor | None,
) -> Iterator[None]:
    """Replace the output of each block by what its hook returns; the hook does not see the `prefix`
    leading tokens."""

    def wrap(hook: LayerHook) -> Callable[[nn.Module, Any, Any], Any]:
        def run(module: nn.Module, args: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output  # [B, P + T, D]
            tokens = hidden[:, prefix:]
            visible = tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask
            hidden = torch.cat([hidden[:, :prefix], hook(tokens, visible)], dim=1)
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return run

    for number in layer_hooks or ():
        if not -len(blocks) <= number < len(blocks):
            raise ValueError(f"layer_hooks: there is no layer {number}; it has {len(blocks)}")
    handles = [
        blocks[i].register_forward_hook(wrap(hook), prepend=True)
        for i, hook in (layer_hooks or {}).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


DEPTHS = ("num_hidden_layers", "encoder_layers", "num_layers", "depth")


class Tower(NamedTuple):
    """One encoder in a model of several: its class, its configuration, and its path.

    path: in the whole model; empty if the configuration is the encoder's own.
    """

    kind: Any
    config: Any
    path: str = ""

    def build(self, **options: Any) -> nn.Module:
        """Return it without weights, in fp32 for any precision of the checkpoint."""
        build = getattr(self.kind, "_from_config", None)  # a plain module has none
        options = {"dtype": torch.float32, **options} if build else {}
        return cast(nn.Module, (build or self.kind)(self.config, **options).float())

    def shallow(self, **options: Any) -> nn.Module:
        """Return it with one layer, to measure the shapes of its outputs."""
        config = copy.deepcopy(self.config)
        for name in (n for n in DEPTHS if isinstance(getattr(config, n, None), int)):
            setattr(config, name, 1)
        return Tower(self.kind, config).build(**options)


def tower_of(config: Any, sections: Sequence[str]) -> Tower:
    """Return the encoder that the first of these sections of a model's configuration is for: of
    the class that `AutoModel` has for it, or of the submodule that the whole model builds from it.
    Raise ValueError if there is none."""
    section = _section(config, sections)
    if section is None:
        if (kind := _mapped(config)) is None:
            raise ValueError(f"{config.model_type} has no model that AutoModel supports")
        return Tower(kind, config)
    path, kind = _submodule(config, type(section))
    return Tower(_mapped(section) or kind, section, path)


_SUBMODULES: dict[str, tuple[str, Any]] = {}


def _submodule(config: Any, section: type) -> tuple[str, Any]:
    """Return path and class of the outermost submodule that is configured by a section."""
    key = section.__name__ + json.dumps(config.to_dict(), default=str, sort_keys=True)
    if key not in _SUBMODULES:
        try:
            with torch.device("meta"):
                whole = AutoModel.from_config(config)
        except Exception as error:
            raise ValueError(f"{config.model_type} cannot be built: {error}") from error
        modules = ((p, m) for p, m in whole.named_modules() if p)
        matches = ((p, type(m)) for p, m in modules if type(getattr(m, "config", None)) is section)
        _SUBMODULES[key] = next(matches, ("", None))
    if _SUBMODULES[key][1] is None:
        raise ValueError(f"{config.model_type} builds no module from its {section.__name__}")
    return _SUBMODULES[key]


def _section(config: Any, sections: Sequence[str]) -> Any:
    for name in sections:
        if getattr(config, name, None) is not None:
            return getattr(config, name)
    inner = (getattr(config, name, None) for name in getattr(config, "sub_configs", {}))
    return next((s for c in inner if c and (s := _section(c, sections)) is not None), None)


def _mapped(config: Any) -> Any:
    kind = MODEL_MAPPING.get(type(config), None)
    return kind[0] if isinstance(kind, (list, tuple)) else kind
