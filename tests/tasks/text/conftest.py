"""Batches of captions, and a stream of pictures beside them."""

from __future__ import annotations

import pytest

from sensorium.tasks.batch import Batch
from sensorium.tasks.text import Captioning
from sensorium.testing.context import prepare_batch
from sensorium.tests.tasks.text.captions import ROWS


@pytest.fixture
def batch_of(backbone):  # type: ignore[no-untyped-def]
    def batch_of(task: Captioning, rows=ROWS, keys=None, training=True) -> Batch:  # type: ignore[no-untyped-def]
        return prepare_batch(task, rows, keys, backbone, training)

    return batch_of


@pytest.fixture
def encode(make_streams, make_ragged):  # type: ignore[no-untyped-def]
    return make_streams(image=make_ragged(4, 5))
