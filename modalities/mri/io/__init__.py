"""Reading of volumes: NIfTI, DICOM, and their orientation in the world."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .orientation import oriented as oriented
    from .orientation import rotation as rotation
    from .orientation import spacing as spacing
    from .read import read as read
    from .read import read_mask as read_mask
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {"orientation": ["oriented", "rotation", "spacing"], "read": ["read", "read_mask"]},
    )
