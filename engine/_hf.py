"""🤗 datasets, as the sources of the engine call it: quiet, local, its errors in one line."""

from __future__ import annotations

import contextlib
import glob
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from ._store import cache_root

FAILURES = (datasets.exceptions.DatasetsError, tarfile.TarError, ValueError, OSError)


def load_files(kind: str, files: list[Path], split: str, **options: Any) -> Any:
    """Local files of one kind; converted once, under the cache's root, unless they stream."""
    with quiet():
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


def root_cause(error: BaseException) -> str:
    """What the first error of a chain said, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300]
