"""The HTML report of runs."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .look import write_look as write_look
    from .report import write_report as write_report
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__, {"look": ["write_look"], "report": ["write_report"]}
    )
