"""Training: the trainer, validation, optimizers and the dry run."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .batches import check_data as check_data
    from .callbacks import Callback as Callback
    from .dry_run import check as check
    from .train import train as train
    from .trainer import Trainer as Trainer
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "callbacks": ["Callback"],
            "batches": ["check_data"],
            "dry_run": ["check"],
            "train": ["train"],
            "trainer": ["Trainer"],
        },
    )
