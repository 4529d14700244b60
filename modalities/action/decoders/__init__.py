"""Heads that sample vectors of numbers: actions, coordinates, latents."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .heads import DiffusionHead as DiffusionHead
    from .heads import FlowHead as FlowHead
    from .heads import VectorHead as VectorHead
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__, {"heads": ["DiffusionHead", "FlowHead", "VectorHead"]}
    )
