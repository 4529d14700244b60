"""A task's head with one output vector a row, or a token."""

from __future__ import annotations

from torch import Tensor

from ...modalities.base import Features
from ..base import Task


def head_output(task: Task, name: str, features: Features) -> Tensor:
    """Return the head's output `[B, K]` for a stream's features, in float32.

    Raise ValueError if the head is missing, or does not end in one vector of its width.
    """
    use = task.head_uses[name]
    stream, width = use.stream, use.out_dim
    where = f"{type(task).__name__.lower()}: its head {name!r} on the stream {stream!r}"
    if name not in task.heads:
        raise ValueError(
            f"{where} was not built; give the task a section `{name}: {{type: linear}}`"
        )
    output: Features = task.heads[name](features)
    if output.pooled is None or output.pooled.shape[-1] != width:
        shape = f"tokens {tuple(output.tokens.shape)}" if output.pooled is None else "a vector"
        last = "without a vector" if output.pooled is None else f"of {output.pooled.shape[-1]}"
        raise ValueError(
            f"{where} returns {shape} {last}, expected a vector of {width} a row; use a head such "
            "as linear, mlp or attention_probe"
        )
    return output.pooled.float()


def token_output(task: Task, name: str, features: Features) -> Features:
    """Return the head's output for a stream's features, tokens `[B, T, K]` in float32.

    Raise ValueError if the head is missing, or does not keep the tokens.
    """
    use = task.head_uses[name]
    where = f"{type(task).__name__.lower()}: its head {name!r} on the stream {use.stream!r}"
    if name not in task.heads:
        raise ValueError(
            f"{where} was not built; give the task a section `{name}: {{type: per_token}}`"
        )
    output: Features = task.heads[name](features)
    expected = (*features.tokens.shape[:2], use.out_dim)
    if tuple(output.tokens.shape) != expected:
        raise ValueError(
            f"{where} returns tokens {tuple(output.tokens.shape)}, expected {expected}; use a head "
            "that keeps the tokens, such as per_token"
        )
    return output.replace(tokens=output.tokens.float())
