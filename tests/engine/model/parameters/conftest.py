"""The model whose weights others are initialized from."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensorium.engine.checkpoint import save_run
from sensorium.engine.model import Model
from sensorium.tests.engine.model.parameters.weight_cases import model_of


@pytest.fixture
def first() -> Model:
    """A run, saved in `runs/first`, with weights that no seed of the tests gives."""
    model = model_of(100)
    save_run(model, Path("runs/first"))
    return model
