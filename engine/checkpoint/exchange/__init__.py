"""Models of other libraries as runs, and runs as models of other libraries."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .export import export_llava as export_llava
    from .importing import KINDS as KINDS
    from .importing import import_model as import_model
    from .parts import export_part as export_part
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "export": ["export_llava"],
            "importing": ["KINDS", "import_model"],
            "parts": ["export_part"],
        },
    )
