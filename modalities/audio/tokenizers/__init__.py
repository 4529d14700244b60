"""Sound as units."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .units import AudioTokenizer as AudioTokenizer
    from .units import AudioTokens as AudioTokens
    from .units import Units as Units
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {"units": ["AudioTokenizer", "AudioTokens", "Units"]},
    )
