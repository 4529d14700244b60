"""Transforms of the vocabulary of a language model."""

from typing import TYPE_CHECKING

from .....lazy import lazy_exports

if TYPE_CHECKING:
    from .tables import network as network
    from .tables import networks as networks
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__, {"tables": ["network", "networks"]})
