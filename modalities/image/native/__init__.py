"""Pictures at their own resolution, packed without padding."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .encoder import NativeViT as NativeViT
    from .processor import NativeProcessor as NativeProcessor
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__, {"encoder": ["NativeViT"], "processor": ["NativeProcessor"]}
    )
