"""The layers of a network found by its structure, and exchanged together with its configuration.

A stack is a list of modules that hold parameters and lies in no other list. What else counts
layers is changed too: fields of transformers' configurations, attributes of the module that holds
the list, and the index that each layer keeps of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

COUNTS = (
    "num_hidden_layers", "num_layers", "n_layer", "n_layers", "depth", "layers",
    "encoder_layers", "num_encoder_layers", "decoder_layers", "num_decoder_layers",
)  # fmt: skip
"""Names under which configurations and modules keep the number of layers."""

INDICES = ("layer_idx", "layer_id", "layer_index", "layer_number")
"""Names under which a layer keeps its own index."""

ROLES = ("encoder", "decoder")


@dataclass(frozen=True)
class LayerStack:
    """path: of the list in the module. owners: the modules around the list, the innermost first."""

    path: str
    container: nn.Module
    owners: Sequence[nn.Module]

    @property
    def layers(self) -> list[nn.Module]:
        return list(self.container.children())

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def role(self) -> str | None:
        """`encoder` or `decoder` in a model that has both."""
        return next((name for name in self.path.split(".") if name in ROLES), None)

    @property
    def only_first(self) -> str:
        """A tensor that the first layer holds and no other one, "" if there is none (T5 keeps the
        biases of positions there)."""
        first, *rest = [set(layer.state_dict()) for layer in self.layers]
        shared: set[str] = set().union(*rest) if rest else first
        return min(first - shared, default="")


def stacks(module: nn.Module) -> list[LayerStack]:
    """Return the stacks of layers of a module, those with the most parameters first."""
    layer_stacks: list[LayerStack] = []
    for path, container in module.named_modules():
        within = any(path.startswith(f"{stack.path}.") for stack in layer_stacks)
        if within or not isinstance(container, (nn.ModuleList, nn.Sequential)):
            continue
        layers = list(container.children())
        if not layers or not all(_size(layer) and list(layer.children()) for layer in layers):
            continue
        names = path.split(".")[:-1]
        owners = [module.get_submodule(".".join(names[:i])) for i in range(len(names), -1, -1)]
        layer_stacks.append(LayerStack(path, container, owners))
    return sorted(layer_stacks, key=lambda stack: -_size(stack.container))


def find_stack(module: nn.Module, role: str | None = None) -> LayerStack:
    """Return the stack of layers that a transform changes.

    role: `encoder` or `decoder`; needed where there are both. Raise ValueError if there is none.
    """
    chosen = stacks(module)
    if blocks := _blocks(module):
        known = {id(block) for block in blocks}
        own_stacks = [s for s in chosen if {id(layer) for layer in s.layers} <= known]
        chosen = chosen if role else own_stacks or chosen
    kind = type(module).__name__
    if role is not None:
        chosen = [stack for stack in chosen if stack.role == role]
        if not chosen:
            raise ValueError(f"stack: {kind} has no stack of layers called {role}; leave it out")
    if not chosen:
        raise ValueError(f"{kind} holds no list of layers; take the transform out")
    roles = {stack.role for stack in chosen}
    if role is None and roles >= set(ROLES):
        raise ValueError(f"stack: {kind} has two stacks of layers; set stack: encoder or decoder")
    return chosen[0]


def _blocks(module: nn.Module) -> Sequence[nn.Module]:
    blocks = getattr(module, "blocks", None)
    return list(blocks()) if callable(blocks) and not isinstance(blocks, nn.Module) else []


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def set_layers(stack: LayerStack, layers: Sequence[nn.Module], indices: Sequence[int]) -> None:
    """Exchange the layers of a stack. indices: of each new layer in the old list."""
    before = len(stack)
    for name in list(stack.container._modules):
        del stack.container._modules[name]
    for i, layer in enumerate(layers):
        stack.container._modules[str(i)] = layer
        for inner in layer.modules():
            for key in INDICES:
                if isinstance(getattr(inner, key, None), int):
                    setattr(inner, key, i)
    _count(stack.owners[0], before, len(layers))
    around = configs(stack)
    for config in around[:-1]:  # of this stack alone
        _reconfigure(config, None, before, indices)
    for config in around[-1:]:
        _reconfigure(config, stack.role, before, indices)


def configs(stack: LayerStack) -> list[Any]:
    """Return the configurations of transformers around a stack, the innermost first, each once."""
    around = {id(c): c for owner in stack.owners if hasattr(c := _config(owner), "to_dict")}
    return list(around.values())


def _config(module: nn.Module) -> Any:
    return getattr(module, "config", None)


def _reconfigure(config: Any, role: str | None, before: int, indices: Sequence[int]) -> None:
    """Write the new layers into a configuration: their number, and its lists by layer.

    role: of the stack, in a configuration of both stacks (BART, T5).
    """
    fields = {config.attribute_map.get(name, name) for name in COUNTS if hasattr(config, name)}
    if role is not None:
        fields = _of_role(fields, role)
    for name in fields:
        if getattr(config, name, None) == before and not isinstance(getattr(config, name), bool):
            setattr(config, name, len(indices))
    for name, value in list(vars(config).items()):
        by_layer = isinstance(value, (list, tuple)) and len(value) == before
        if by_layer and "layer" in name and not name.startswith("_"):
            setattr(config, name, [value[i] for i in indices])


def _of_role(fields: set[str], role: str) -> set[str]:
    own_fields = {name for name in fields if role in name}
    other = next(r for r in ROLES if r != role)
    return own_fields or {name for name in fields if other not in name}


def _count(owner: nn.Module, before: int, after: int) -> None:
    for name in COUNTS:
        value = vars(owner).get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value == before:
            setattr(owner, name, after)
