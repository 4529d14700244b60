"""Seeds of the parts of a recipe."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch

from .device import fork_rng


def derive_seed(seed: int, *names: object) -> int:
    """A seed of 63 bits from a seed and names; the same in every process and version."""
    text = "\0".join(str(n) for n in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


@contextlib.contextmanager
def seeded(seed: int, *names: object) -> Iterator[None]:
    """Torch's generator at a derived seed inside, as it was outside."""
    with fork_rng():
        torch.manual_seed(derive_seed(seed, *names))
        yield
