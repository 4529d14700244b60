"""Contract checks for parts of your own: `check_encoder(MyEncoder, modality="image", size=16)`.

`StubContext` and `prepare_batch` replace a model and its loader in tests of tasks.

Each check builds the class as the engine does from a recipe's options, runs the contract that
the package's own parts meet, and raises AssertionError, one line, at the first violation. They
are plain functions for any test runner, and need neither network nor accelerator.
"""

from typing import TYPE_CHECKING

from ..lazy import lazy_exports

if TYPE_CHECKING:
    from .backbones import check_backbone as check_backbone
    from .connectors import check_connector as check_connector
    from .context import StubContext as StubContext
    from .context import prepare_batch as prepare_batch
    from .encoders import check_encoder as check_encoder
    from .fittables import check_fittable as check_fittable
    from .modalities import check_modality as check_modality
    from .sources import check_source as check_source
    from .tasks import check_task as check_task
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "backbones": ["check_backbone"],
            "connectors": ["check_connector"],
            "context": ["StubContext", "prepare_batch"],
            "encoders": ["check_encoder"],
            "fittables": ["check_fittable"],
            "modalities": ["check_modality"],
            "sources": ["check_source"],
            "tasks": ["check_task"],
        },
    )
