"""Robot data sets: folders of frames and LeRobot."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .lerobot import LeRobot as LeRobot
    from .lerobot_writer import Recording as Recording
    from .lerobot_writer import write as write
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__, {"lerobot": ["LeRobot"], "lerobot_writer": ["Recording", "write"]}
    )
