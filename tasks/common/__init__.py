"""Helpers of several task families: prompts, heads, moving averages, crops and geometry."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .crops import Crop as Crop
    from .crops import Range as Range
    from .crops import crop_and_resize as crop_and_resize
    from .crops import spatial_shape as spatial_shape
    from .distributed import all_gather_with_grad as all_gather_with_grad
    from .distributed import all_reduce_max as all_reduce_max
    from .distributed import all_reduce_sum as all_reduce_sum
    from .distributed import local_shard as local_shard
    from .distributed import meet as meet
    from .distributed import set_meeting as set_meeting
    from .ema import cosine as cosine
    from .ema import ema_copy as ema_copy
    from .ema import ema_update as ema_update
    from .geometry import grid_coordinates as grid_coordinates
    from .geometry import grid_to_world as grid_to_world
    from .geometry import mask_coverage as mask_coverage
    from .geometry import resample_grid as resample_grid
    from .geometry import transform_points as transform_points
    from .hashing import stable_hash as stable_hash
    from .heads import head_output as head_output
    from .heads import token_output as token_output
    from .prompts import Prompt as Prompt
    from .prompts import assemble as assemble
    from .prompts import example_row as example_row
    from .prompts import parse_prompt as parse_prompt
    from .prompts import parse_target as parse_target
    from .prompts import require_streams as require_streams
    from .similarity import MAX_LOGIT_SCALE as MAX_LOGIT_SCALE
    from .similarity import l2_normalize as l2_normalize
    from .texts import encode_ids as encode_ids
    from .texts import merged_ids as merged_ids
    from .word_places import word_places as word_places
    from .words import text_unit_scores as text_unit_scores
    from .words import text_units as text_units
    from .words import words_of as words_of
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "crops": ["Crop", "Range", "crop_and_resize", "spatial_shape"],
            "distributed": [
                "all_gather_with_grad",
                "all_reduce_max",
                "all_reduce_sum",
                "local_shard",
                "meet",
                "set_meeting",
            ],
            "ema": ["cosine", "ema_copy", "ema_update"],
            "geometry": [
                "mask_coverage",
                "grid_coordinates",
                "resample_grid",
                "transform_points",
                "grid_to_world",
            ],
            "hashing": ["stable_hash"],
            "heads": ["head_output", "token_output"],
            "prompts": [
                "Prompt",
                "assemble",
                "example_row",
                "parse_prompt",
                "parse_target",
                "require_streams",
            ],
            "similarity": ["MAX_LOGIT_SCALE", "l2_normalize"],
            "texts": ["encode_ids", "merged_ids"],
            "word_places": ["word_places"],
            "words": ["text_unit_scores", "text_units", "words_of"],
        },
    )
