"""Text without a vocabulary: rendered as pictures, or hashed."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .encoder import RenderedText as RenderedText
    from .render import Renderer as Renderer
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {"encoder": ["RenderedText"], "render": ["Renderer"]},
    )
