"""How a task asks its head for a vector a row."""

from __future__ import annotations

from torch import Tensor

from ...modalities.base import Features
from ..base import Task


def head_output(task: Task, name: str, features: Features) -> Tensor:
    """`[B, K]` what the head makes of a stream's features, in float32.

    Raises ValueError where the head is missing, or does not end in one vector of its width.
    """
    use = task.head_uses[name]
    stream, width = use.stream, use.out_dim
    where = f"{type(task).__name__.lower()}: its head {name!r} on the stream {stream!r}"
    if name not in task.heads:
        raise ValueError(
            f"{where} was not built; give the task a section `{name}: {{type: linear}}`"
        )
    found: Features = task.heads[name](features)
    if found.pooled is None or found.pooled.shape[-1] != width:
        shape = f"tokens {tuple(found.tokens.shape)}" if found.pooled is None else "a vector"
        last = "without a vector" if found.pooled is None else f"of {found.pooled.shape[-1]}"
        raise ValueError(
            f"{where} gives {shape} {last}, expected a vector of {width} a row; use a head such "
            "as linear, mlp or attention_probe"
        )
    return found.pooled.float()
