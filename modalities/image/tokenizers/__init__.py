"""Pictures and boxes as tokens."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .boxes import BoxTokenizer as BoxTokenizer
    from .encoder import BoxTokens as BoxTokens
    from .encoder import ImageTokenizer as ImageTokenizer
    from .encoder import ImageTokens as ImageTokens
    from .layout import GridLayout as GridLayout
    from .vq import PatchVQ as PatchVQ
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "boxes": ["BoxTokenizer"],
            "encoder": ["BoxTokens", "ImageTokenizer", "ImageTokens"],
            "layout": ["GridLayout"],
            "vq": ["PatchVQ"],
        },
    )
