"""Speech recognition with a diffusion language model."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .asr_diffusion import DiffusionASR as DiffusionASR
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__, {"asr_diffusion": ["DiffusionASR"]})
