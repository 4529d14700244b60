"""Sources of rows: files of one kind, folders, tar shards, and the hub."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .coco import Coco as Coco
    from .csv_rows import Csv as Csv
    from .folders import AudioFolder as AudioFolder
    from .folders import ImageFolder as ImageFolder
    from .hub import hub as hub
    from .json_rows import Json as Json
    from .parquet import Parquet as Parquet
    from .tar import webdataset as webdataset
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "coco": ["Coco"],
            "csv_rows": ["Csv"],
            "folders": ["AudioFolder", "ImageFolder"],
            "hub": ["hub"],
            "json_rows": ["Json"],
            "parquet": ["Parquet"],
            "tar": ["webdataset"],
        },
    )
