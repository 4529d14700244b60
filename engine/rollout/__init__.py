"""Policies in simulators."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .ablations import Conditions as Conditions
    from .metrics import format_summaries as format_summaries
    from .metrics import wilson as wilson
    from .rollout import rollout as rollout
    from .rollout import section_of as section_of
    from .runner import How as How
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "ablations": ["Conditions"],
            "metrics": ["format_summaries", "wilson"],
            "rollout": ["rollout", "section_of"],
            "runner": ["How"],
        },
    )
