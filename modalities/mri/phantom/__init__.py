"""Generated heads: anatomy, lesions, MR signals and reports."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .phantom import Phantom as Phantom
    from .signal_equations import SEQUENCES as SEQUENCES
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__, {"phantom": ["Phantom"], "signal_equations": ["SEQUENCES"]}
    )
