"""Transforms of the layers of a network: which there are, and how wide."""

from typing import TYPE_CHECKING

from .....lazy import lazy_exports

if TYPE_CHECKING:
    from .depth import StackName as StackName
    from .heads import Attention as Attention
    from .heads import attention_of as attention_of
    from .maps import in_features as in_features
    from .maps import linear_maps as linear_maps
    from .maps import out_features as out_features
    from .maps import rows_of as rows_of
    from .structure import LayerStack as LayerStack
    from .structure import configs as configs
    from .structure import find_stack as find_stack
    from .structure import stacks as stacks
    from .width import feed_forward as feed_forward
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "depth": ["StackName"],
            "heads": ["Attention", "attention_of"],
            "maps": ["in_features", "linear_maps", "out_features", "rows_of"],
            "structure": ["LayerStack", "configs", "find_stack", "stacks"],
            "width": ["feed_forward"],
        },
    )
