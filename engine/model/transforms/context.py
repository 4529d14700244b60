"""The arguments of a transform besides the modules that it changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ....modalities.base import Tokenizer
from ...recipe import ComponentPath

NOWHERE = ComponentPath("backbone")
"""The place of a model that is in no recipe."""


@dataclass(frozen=True)
class TransformContext:
    """values: whether the weights are read and written; False where shapes alone are needed (the
    dry run on the meta device, a part whose weights a run holds), and nothing outside is read.
    name: the folder or hub id that the part's weights come from, if it names one. tokenizer: that
    of the part. where: its place in the recipe. load: returns a copy of the module as it is now,
    filled from another source of weights; None without one.
    """

    values: bool = True
    name: str | None = None
    tokenizer: Tokenizer | None = None
    where: ComponentPath = NOWHERE
    load: Callable[[str], nn.Module] | None = None
