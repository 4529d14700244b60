"""Sources, splits, windows, the sampler, streaming and the loader."""

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .dataset import PreparedRow as PreparedRow
    from .dataset import StreamDataset as StreamDataset
    from .dataset import TaskDataset as TaskDataset
    from .dataset import stream_readers as stream_readers
    from .dataset import task_dataset as task_dataset
    from .loader import Collator as Collator
    from .loader import batches as batches
    from .loader import handle_failures as handle_failures
    from .loader import load_batches as load_batches
    from .loader import sequential_batches as sequential_batches
    from .loader import stream_batches as stream_batches
    from .loader import worker_death as worker_death
    from .row_errors import FAILURES as FAILURES
    from .row_errors import cell_items as cell_items
    from .row_errors import check_nulls as check_nulls
    from .row_errors import readable as readable
    from .sampler import BatchSampler as BatchSampler
    from .sampler import Layout as Layout
    from .splits import TRAIN as TRAIN
    from .splits import VALIDATION as VALIDATION
    from .splits import SkippedRows as SkippedRows
    from .splits import check_segments as check_segments
    from .splits import count_rows as count_rows
    from .splits import failure_line as failure_line
    from .splits import ignored_line as ignored_line
    from .splits import load_split as load_split
    from .splits import open_section as open_section
    from .splits import splits as splits
    from .streaming import ShuffleBuffer as ShuffleBuffer
    from .windows import Span as Span
    from .windows import observation_windows as observation_windows
    from .windows import split_windows as split_windows
    from .windows import tile_to_window as tile_to_window
    from .wrappers import InMemoryPrefix as InMemoryPrefix
    from .wrappers import RowList as RowList
    from .wrappers import Subset as Subset
    from .wrappers import Wrapped as Wrapped
    from .wrappers import limit as limit
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "dataset": [
                "PreparedRow",
                "StreamDataset",
                "TaskDataset",
                "stream_readers",
                "task_dataset",
            ],
            "loader": [
                "Collator",
                "batches",
                "handle_failures",
                "load_batches",
                "worker_death",
                "sequential_batches",
                "stream_batches",
            ],
            "row_errors": ["FAILURES", "cell_items", "check_nulls", "readable"],
            "sampler": ["BatchSampler", "Layout"],
            "splits": [
                "SkippedRows",
                "TRAIN",
                "VALIDATION",
                "check_segments",
                "count_rows",
                "failure_line",
                "ignored_line",
                "load_split",
                "open_section",
                "splits",
            ],
            "streaming": ["ShuffleBuffer"],
            "windows": ["Span", "tile_to_window", "observation_windows", "split_windows"],
            "wrappers": ["InMemoryPrefix", "RowList", "Subset", "Wrapped", "limit"],
        },
    )

SOURCES = {
    "audiofolder": "sensorium.engine.data.sources.folders:AudioFolder",
    "coco": "sensorium.engine.data.sources.coco:Coco",
    "csv": "sensorium.engine.data.sources.csv_rows:Csv",
    "hub": "sensorium.engine.data.sources.hub:hub",
    "imagefolder": "sensorium.engine.data.sources.folders:ImageFolder",
    "json": "sensorium.engine.data.sources.json_rows:Json",
    "parquet": "sensorium.engine.data.sources.parquet:Parquet",
    "webdataset": "sensorium.engine.data.sources.tar:webdataset",
}
