"""Transforms of a part's modules and weights, applied once after loading: `transforms:`."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .apply import apply_steps as apply_steps
    from .apply import load_and_transform as load_and_transform
    from .convert import convert as convert
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "apply": ["apply_steps", "load_and_transform"],
            "convert": ["convert"],
        },
    )
