"""🤗 datasets, as the sources of the engine call it: quiet, local, its errors in one line."""

from __future__ import annotations

import contextlib
import functools
import glob
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets

from ....modalities.paths import cache_root

FAILURES = (Exception,)
"""What 🤗 datasets, pyarrow and fsspec may fail with."""


def load_files(kind: str, files: list[Path], split: str, **options: Any) -> Any:
    """Local files of one kind; converted once, under the cache's root, unless they stream."""
    with quiet(), no_audio_decoding():
        return datasets.load_dataset(
            kind,
            data_files=[glob.escape(str(file)) for file in files],
            split=split,
            cache_dir=str(cache_root() / "datasets"),
            **options,
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of 🤗 datasets where nobody watches."""
    if sys.stderr.isatty() or datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


@contextlib.contextmanager
def no_audio_decoding() -> Iterator[None]:
    """Sounds may be taken from where they lie, as bytes and paths: for that alone 🤗 datasets
    would want torchcodec, which is not needed here."""
    encode = datasets.Audio.encode_example
    datasets.Audio.encode_example = functools.partialmethod(_as_stored, encode)
    try:
        yield
    finally:
        datasets.Audio.encode_example = encode


def _as_stored(audio: Any, encode: Callable[[Any, Any], Any], value: Any) -> Any:
    if isinstance(value, Mapping) and "array" not in value:
        return {"bytes": value.get("bytes"), "path": value.get("path")}
    if isinstance(value, (str, Path)):
        return {"bytes": None, "path": str(value)}
    return encode(audio, value)


def each_row(rows: datasets.IterableDataset) -> Iterator[dict[str, Any]]:
    """Every row, in every process: `iter(rows)` would deal them to the loader's workers, which
    here all read the same stream and take their batches out of it."""
    batches = rows.iter(batch_size=1)
    while True:
        with no_audio_decoding():
            batch = next(batches, None)
        if batch is None:
            return
        yield {name: values[0] for name, values in batch.items()}


def root_cause(error: BaseException) -> str:
    """Return the message of the first error of a chain, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300]
