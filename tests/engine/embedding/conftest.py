"""The folder that the tests of `embed` use."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from sensorium.tests.engine.embedding.places import Place

FATAL = Path(__file__).with_name("fatal_parts.py")


@pytest.fixture
def place(runner: Any) -> Place:
    shutil.copy(FATAL, runner.folder / FATAL.name)
    return Place(runner)
