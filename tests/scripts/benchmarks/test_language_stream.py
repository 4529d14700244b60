"""A stream of texts passes through in the same memory, and is resumed within its shards."""

from __future__ import annotations

import pytest

from sensorium.scripts.benchmarks.language import stream


@pytest.mark.slow
def test_a_resumed_stream_has_the_losses_and_reads_no_more_than_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sensorium.engine.data.streaming.WINDOW", 64)
    result = stream.main(megabytes=1, characters=1000, shards=40)
    assert result["equal"] and len(result["seen"]) >= 10
    # 16 lanes, each with a window of 8 rows and a part of the shard where it begins.
    assert result["again"] <= 16 * (8 + result["rows"])
