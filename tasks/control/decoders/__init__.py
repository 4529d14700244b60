"""Action decoders: parallel, Fourier, autoregressive, continuous and CVAE."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .autoregressive import Autoregressive as Autoregressive
    from .base import INIT_STD as INIT_STD
    from .base import ActionDecoder as ActionDecoder
    from .base import fixed_length as fixed_length
    from .chunks import Chunk as Chunk
    from .chunks import ChunkStatistics as ChunkStatistics
    from .chunks import Pair as Pair
    from .chunks import chunks_of_references as chunks_of_references
    from .chunks import read_action as read_action
    from .chunks import read_chunk as read_chunk
    from .continuous import Continuous as Continuous
    from .continuous import Points as Points
    from .fourier import Fourier as Fourier
    from .parallel import Parallel as Parallel
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "autoregressive": ["Autoregressive"],
            "base": ["ActionDecoder", "INIT_STD", "fixed_length"],
            "chunks": [
                "Chunk",
                "ChunkStatistics",
                "Pair",
                "chunks_of_references",
                "read_action",
                "read_chunk",
            ],
            "continuous": ["Continuous", "Points"],
            "fourier": ["Fourier"],
            "parallel": ["Parallel"],
        },
    )
