"""Examples that run unchanged."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .some_tasks import keep_tasks as keep_tasks
    from .some_tasks import missing as missing
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__, {"some_tasks": ["keep_tasks", "missing"]}
    )
