"""The content-keyed store of samples and features."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .admin import list_stores as list_stores
    from .admin import remove_stores as remove_stores
    from .admin import sync_stores as sync_stores
    from .admin import verify as verify
    from .fill import fill as fill
    from .keys import content_hash as content_hash
    from .keys import encoder_identity as encoder_identity
    from .keys import processor_identity as processor_identity
    from .keys import processor_settings as processor_settings
    from .keys import read_identity as read_identity
    from .keys import weights_hash as weights_hash
    from .keys import without_sources as without_sources
    from .records import PRECISIONS as PRECISIONS
    from .records import from_records as from_records
    from .records import record_to_sample as record_to_sample
    from .records import sample_to_record as sample_to_record
    from .records import to_records as to_records
    from .shard import Record as Record
    from .store import Store as Store
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "admin": ["list_stores", "remove_stores", "sync_stores", "verify"],
            "fill": ["fill"],
            "keys": [
                "content_hash",
                "encoder_identity",
                "processor_identity",
                "processor_settings",
                "read_identity",
                "weights_hash",
                "without_sources",
            ],
            "records": [
                "PRECISIONS",
                "from_records",
                "record_to_sample",
                "sample_to_record",
                "to_records",
            ],
            "shard": ["Record"],
            "store": ["Store"],
        },
    )
