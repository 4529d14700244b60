"""The model of a recipe: streams, composition, checks, adapters, weights and fitting."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .attention_tap import AttentionTap as AttentionTap
    from .attention_tap import normalized_entropy as normalized_entropy
    from .build import build as build
    from .build import compose as compose
    from .build import resolve_and_fit as resolve_and_fit
    from .build import validate_loaded as validate_loaded
    from .checks import decoder_notes as decoder_notes
    from .checks import tasks_to_meta as tasks_to_meta
    from .checks import tokenizer_notes as tokenizer_notes
    from .fit import FITTED as FITTED
    from .fit import States as States
    from .fit import fit as fit
    from .fit import load_fitted as load_fitted
    from .fit import read_json as read_json
    from .fit import read_states as read_states
    from .fit import save_fitted as save_fitted
    from .model import BuiltComponent as BuiltComponent
    from .model import Model as Model
    from .model import count_own_parameters as count_own_parameters
    from .precompute import FeatureCacher as FeatureCacher
    from .precompute import move_to_device as move_to_device
    from .precompute import uncacheable_reason as uncacheable_reason
    from .stream import encode as encode
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "attention_tap": ["AttentionTap", "normalized_entropy"],
            "build": ["build", "compose", "resolve_and_fit", "validate_loaded"],
            "checks": ["decoder_notes", "tasks_to_meta", "tokenizer_notes"],
            "fit": [
                "FITTED",
                "States",
                "fit",
                "load_fitted",
                "read_json",
                "read_states",
                "save_fitted",
            ],
            "model": ["BuiltComponent", "Model", "count_own_parameters"],
            "precompute": ["FeatureCacher", "move_to_device", "uncacheable_reason"],
            "stream": ["encode"],
        },
    )
