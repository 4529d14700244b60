"""Policies in simulators."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .ablations import Ablation as Ablation
    from .metrics import format_summaries as format_summaries
    from .metrics import wilson as wilson
    from .policy import check_env as check_env
    from .policy import make_policy as make_policy
    from .rollout import env_config as env_config
    from .rollout import rollout as rollout
    from .runner import RolloutOptions as RolloutOptions
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "ablations": ["Ablation"],
            "metrics": ["format_summaries", "wilson"],
            "policy": ["check_env", "make_policy"],
            "rollout": ["rollout", "env_config"],
            "runner": ["RolloutOptions"],
        },
    )
