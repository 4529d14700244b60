"""The routes of a server."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .chat import chat_router as chat_router
    from .native import native_router as native_router
    from .openai import openai_router as openai_router
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {"chat": ["chat_router"], "native": ["native_router"], "openai": ["openai_router"]},
    )
