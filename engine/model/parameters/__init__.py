"""What loads, freezes, adapts and averages the parameters of a model."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .adapters import apply_adapters as apply_adapters
    from .adapters import is_frozen as is_frozen
    from .adapters import restore_frozen_eval as restore_frozen_eval
    from .ema import begin_averages as begin_averages
    from .ema import on_step_end as on_step_end
    from .weights import fill as fill
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "adapters": ["apply_adapters", "is_frozen", "restore_frozen_eval"],
            "ema": ["begin_averages", "on_step_end"],
            "weights": ["fill"],
        },
    )
