"""An index without rows, and one of 700."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sensorium.engine.index.lance_index import LanceIndex
from sensorium.tests.engine.index.index_rows import ABOUT, entries, unit


@pytest.fixture
def index(tmp_path: Path) -> LanceIndex:
    return LanceIndex.create(str(tmp_path / "index"), ABOUT)


@pytest.fixture
def filled(index: LanceIndex) -> tuple[LanceIndex, np.ndarray]:
    """700 rows in three commits."""
    vectors = unit(700)
    for start, stop in ((0, 300), (300, 301), (301, 700)):
        ages = [float(i) for i in range(start, stop)]
        index.add(entries(vectors[start:stop], start, age=ages))
    return index, vectors
