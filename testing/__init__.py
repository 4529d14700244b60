"""Contract checks for parts of your own: `check_encoder(MyEncoder, modality="image", size=16)`.

`StubContext` and `prepare_batch` stand in for a model and its loader in tests of tasks.

Each check builds the class as the engine does from a recipe's options, runs the contract that
the package's own parts meet, and raises AssertionError, one line, at the first violation. They
are plain functions for any test runner, and need neither network nor accelerator.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .connectors import check_connector
    from .context import StubContext, prepare_batch
    from .encoders import check_encoder
    from .fittables import check_fittable
    from .modalities import check_modality
    from .sources import check_source

__all__ = [
    "StubContext",
    "check_connector",
    "check_encoder",
    "check_fittable",
    "check_modality",
    "check_source",
    "prepare_batch",
]

_MODULES = {
    "StubContext": "context",
    "check_connector": "connectors",
    "check_encoder": "encoders",
    "check_fittable": "fittables",
    "check_modality": "modalities",
    "check_source": "sources",
    "prepare_batch": "context",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
