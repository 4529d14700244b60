"""A server for trained runs: OpenAI's routes, Sensorium's own, and a page."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .app import create_app as create_app
    from .remote_decoder import RemoteDecoder as RemoteDecoder
    from .served import names_of_runs as names_of_runs
    from .settings import ServeSettings as ServeSettings
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "app": ["create_app"],
            "remote_decoder": ["RemoteDecoder"],
            "served": ["names_of_runs"],
            "settings": ["ServeSettings"],
        },
    )
