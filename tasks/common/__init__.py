"""What several task families use: prompts, heads, moving averages, crops and geometry."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .crops import Crop as Crop
    from .crops import Range as Range
    from .crops import cropped as cropped
    from .crops import extent_of as extent_of
    from .distributed import gathered as gathered
    from .distributed import largest as largest
    from .distributed import over_processes as over_processes
    from .ema import cosine as cosine
    from .ema import ema_copy as ema_copy
    from .ema import ema_update as ema_update
    from .geometry import cover as cover
    from .geometry import indices as indices
    from .geometry import laid as laid
    from .geometry import moved as moved
    from .geometry import to_world as to_world
    from .hashing import stable_hash as stable_hash
    from .heads import head_output as head_output
    from .prompts import Prompt as Prompt
    from .prompts import assemble as assemble
    from .prompts import example_row as example_row
    from .prompts import parse_prompt as parse_prompt
    from .prompts import parse_target as parse_target
    from .prompts import require_streams as require_streams
    from .similarity import LARGEST as LARGEST
    from .similarity import unit as unit
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "crops": ["Crop", "Range", "cropped", "extent_of"],
            "distributed": ["gathered", "largest", "over_processes"],
            "ema": ["cosine", "ema_copy", "ema_update"],
            "geometry": ["cover", "indices", "laid", "moved", "to_world"],
            "hashing": ["stable_hash"],
            "heads": ["head_output"],
            "prompts": [
                "Prompt",
                "assemble",
                "example_row",
                "parse_prompt",
                "parse_target",
                "require_streams",
            ],
            "similarity": ["LARGEST", "unit"],
        },
    )
