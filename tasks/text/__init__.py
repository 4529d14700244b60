"""Text generation: captioning and its metrics."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .captioning import Captioning as Captioning
    from .fact_metrics import Facts as Facts
    from .metrics import TextMetrics as TextMetrics
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "captioning": ["Captioning"],
            "fact_metrics": ["Facts"],
            "metrics": ["TextMetrics"],
        },
    )
