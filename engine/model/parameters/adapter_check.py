"""Whether the adapters of a model are trained: a gradient has to reach each of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ...utils import ConfigError, whole_tensor

SHOWN = 3


class AdapterCheck:
    """Collects, over the backward passes of a dry run, what reaches the adapters of a model.

    parts: (place in the recipe, part, its `lora` section or None) of each part.
    """

    def __init__(self, parts: Sequence[tuple[str, nn.Module, Mapping[str, Any] | None]]) -> None:
        self.layers: dict[str, dict[str, nn.Module]] = {}
        components = [(where, module, lora) for where, module, lora in parts if lora]
        self.named = {where for where, _, lora in components if lora.get("target_modules")}
        self.reached: set[int] = set()
        self.called: set[int] = set()
        if components:
            from peft.tuners.tuners_utils import BaseTunerLayer
            from peft.utils.other import AuxiliaryTrainingWrapper

            kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
            for where, module, _ in components:
                modules = module.named_modules()
                self.layers[where] = {n: m for n, m in modules if isinstance(m, kinds)}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Record which adapted layers run, and which of their parameters a backward reaches."""
        layers = [layer for group in self.layers.values() for layer in group.values()]
        handles: list[Any] = [layer.register_forward_hook(self._note_call) for layer in layers]
        for parameter in (p for layer in layers for p in layer.parameters() if p.requires_grad):
            handles.append(parameter.register_post_accumulate_grad_hook(self._note_gradient))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _note_call(self, module: nn.Module, args: Any, output: Any) -> None:
        self.called.add(id(module))

    def _note_gradient(self, parameter: Tensor) -> None:
        self.reached.add(id(parameter))

    def walk_without_dropout(self, model: nn.Module, batch: Any) -> None:
        """Walk a batch in `eval()`: in training a model may leave out layers at random."""
        model.eval()
        with self.watching():
            loss = model(batch)
            if loss.total.requires_grad:
                loss.total.backward()
        model.zero_grad(set_to_none=True)
        model.train()

    @property
    def complete(self) -> bool:
        """Return whether every adapter was reached."""
        return not any(self._dead(group) for group in self.layers.values())

    def validate(self) -> list[str]:
        """Return a note for adapters that no gradient reaches, by name.

        Raise ConfigError if the recipe names them, or if no adapter of a part is reached.
        """
        notes: list[str] = []
        for where, group in self.layers.items():
            dead = self._dead(group)
            if dead and (where in self.named or len(dead) == len(group)):
                raise ConfigError(
                    f"{where}.lora: no gradient reaches the adapters of {_format_names(dead)}: the "
                    "model does not run these modules; name other target_modules"
                )
            if dead:
                notes.append(
                    f"{where}.lora: the model does not run {_format_names(dead)}; these are not "
                    "adapted"
                )
                for name in dead:
                    group[name].requires_grad_(False)
            read = (name for name in group if name not in dead)
            unused = [name for name in read if self._drops_nothing(group[name])]
            if unused:
                raise ConfigError(
                    f"{where}.lora.lora_dropout: has no effect on {_format_names(unused)}: the "
                    "model "
                    "reads their weights and does not run them; set lora_dropout: 0"
                )
        return notes

    def _dead(self, group: dict[str, nn.Module]) -> list[str]:
        return [
            name
            for name, layer in group.items()
            if any(p.requires_grad and id(p) not in self.reached for p in layer.parameters())
        ]

    def _drops_nothing(self, layer: nn.Module) -> bool:
        dropouts = getattr(layer, "lora_dropout", None)
        drops = dropouts is not None and any(isinstance(m, nn.Dropout) for m in dropouts.values())
        return drops and id(layer) not in self.called


def untrained_adapters(model: nn.Module) -> list[str]:
    """Return a line on the adapters of LoRA whose second factor is zero after training, as before.

    `AdapterCheck` sees no values: only zeros reach the adapter of a table whose rows no loss reads.
    Every process has to call it.
    """
    zero = (".lora_B.", ".lora_embedding_B.")
    named = ((n, p) for n, p in model.named_parameters() if p.requires_grad and p.numel())
    parameters = [(n, p) for n, p in named if any(part in f"{n}." for part in zero)]
    still = [n for n, p in parameters if not bool(whole_tensor(p.detach()).any())]
    if not still:
        return []
    return [f"warning: training left these adapters at zero: {_format_names(still)}"]


def _format_names(names: Sequence[str]) -> str:
    others = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + others
