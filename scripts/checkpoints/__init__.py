"""Verbs on checkpoints of other libraries."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .convert import convert as convert
    from .export_llava import export_llava as export_llava
    from .import_model import import_model as import_model
    from .push import push as push
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "convert": ["convert"],
            "export_llava": ["export_llava"],
            "import_model": ["import_model"],
            "push": ["push"],
        },
    )
