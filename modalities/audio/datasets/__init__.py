"""Speech corpora, and data sets of synthetic sounds, speech and lips."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .synthetic_speech import Talker as Talker
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__, {"synthetic_speech": ["Talker"]})
