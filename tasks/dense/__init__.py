"""Dense prediction: detection, segmentation and grounding."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .box_metrics import BoxMetrics as BoxMetrics
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__, {"box_metrics": ["BoxMetrics"]})
