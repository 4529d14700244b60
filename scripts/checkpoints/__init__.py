"""Verbs on checkpoints of other libraries."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .convert import convert as convert
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__, {"convert": ["convert"]})
