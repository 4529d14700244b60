"""The results of a step of a row, and comparisons with a tolerance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

OK = "ok"


class Wrong(Exception):
    """No error, but other values than the right ones."""


class NotApplicable(Exception):
    """The architecture, or the library, has no such thing."""


def outcome(step: Callable[[], Any]) -> str:
    """Run a step; return `ok`, `n/a: why`, `wrong: what`, `refused: why` or `error: what`.

    A ValueError, of which our own ConfigError is one, counts as refused. Memory that ran out says
    nothing about the class and is `limit`, for any error that carries it.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            step()
    except Exception as error:
        return _result_of(error)
    return OK


def _result_of(error: Exception) -> str:
    if isinstance(error, MemoryError) or "t allocate memory" in str(error):
        return f"limit: memory: {_one_line(error)}"
    if isinstance(error, NotApplicable):
        return f"n/a: {_one_line(error)}"
    if isinstance(error, Wrong):
        return f"wrong: {_one_line(error)}"
    if isinstance(error, ValueError):
        return f"refused: {_one_line(error)}"
    return f"error: {type(error).__name__}: {_one_line(error)}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def same(actual: Tensor, expected: Tensor, label: str, tolerance: float = 1e-4) -> None:
    """Raise Wrong unless two tensors agree to `tolerance` of the larger of 1 and their scale."""
    if actual.shape != expected.shape:
        raise Wrong(f"{label}: {tuple(actual.shape)}, expected {tuple(expected.shape)}")
    if not actual.isfinite().all() and expected.isfinite().all():
        raise Wrong(f"{label}: not finite")
    if not actual.numel():
        return
    worst = float((actual.float() - expected.float()).abs().nan_to_num().max())
    scale = max(1.0, float(expected.float().abs().nan_to_num().max()))
    if worst > tolerance * scale:
        raise Wrong(f"{label} differ by {worst:.2g} of {scale:.2g}")
