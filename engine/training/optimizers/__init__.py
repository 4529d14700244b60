"""Optimizers beside those of torch."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .lazy_rows import leave_untouched_rows as leave_untouched_rows
    from .masters import MasterWeights as MasterWeights
    from .scaled import AdamWRMS as AdamWRMS
    from .scaled import SGDSaI as SGDSaI
    from .scaled import gain as gain
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "lazy_rows": ["leave_untouched_rows"],
            "masters": ["MasterWeights"],
            "scaled": ["AdamWRMS", "SGDSaI", "gain"],
        },
    )
