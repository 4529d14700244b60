"""One forward of a stack of layers: packed rows, masks, hooks, routers, and the abilities of a
stack."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .causal_pair import is_plain_causal as is_plain_causal
    from .causal_pair import pair_configs as pair_configs
    from .causal_pair import register_pair as register_pair
    from .cross import CrossAttention as CrossAttention
    from .cross import takes_context as takes_context
    from .layers import LayerAccess as LayerAccess
    from .layers import first_position as first_position
    from .layers import layers_of as layers_of
    from .layers import meta_experts as meta_experts
    from .layers import run_masked as run_masked
    from .layers import stack_of as stack_of
    from .layers import untie_head as untie_head
    from .masks import Packed as Packed
    from .masks import Positions as Positions
    from .masks import Windows as Windows
    from .masks import additive as additive
    from .masks import arrange as arrange
    from .masks import check_length as check_length
    from .masks import pack as pack
    from .masks import packed_positions as packed_positions
    from .masks import position_ids as position_ids
    from .masks import positions_from_mask as positions_from_mask
    from .masks import real_first as real_first
    from .masks import sliding_windows as sliding_windows
    from .masks import take as take
    from .routing import balances as balances
    from .routing import router_terms as router_terms
    from .state_space import StateSpaceMixer as StateSpaceMixer
    from .trial import Trial as Trial
    from .trial import problem_of_rows as problem_of_rows
    from .trial import runs_from_embeddings as runs_from_embeddings
    from .trial import try_stack as try_stack
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "causal_pair": [
                "is_plain_causal",
                "pair_configs",
                "register_pair",
            ],
            "cross": [
                "CrossAttention",
                "takes_context",
            ],
            "layers": [
                "LayerAccess",
                "first_position",
                "layers_of",
                "meta_experts",
                "run_masked",
                "stack_of",
                "untie_head",
            ],
            "masks": [
                "Packed",
                "Positions",
                "Windows",
                "additive",
                "arrange",
                "check_length",
                "pack",
                "packed_positions",
                "position_ids",
                "positions_from_mask",
                "real_first",
                "sliding_windows",
                "take",
            ],
            "routing": [
                "balances",
                "router_terms",
            ],
            "state_space": [
                "StateSpaceMixer",
            ],
            "trial": [
                "Trial",
                "problem_of_rows",
                "runs_from_embeddings",
                "try_stack",
            ],
        },
    )
