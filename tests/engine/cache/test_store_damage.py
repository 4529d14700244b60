"""Shards that were cut, flipped or half written, and processes that share a store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sensorium.engine.cache import Store
from sensorium.engine.cache.store import CacheWarning
from sensorium.tests.engine.cache.store_cases import expected, fill_some, shards_of

FILLER = """
    import os, signal, sys
    import numpy as np
    from pathlib import Path
    from sensorium.engine.cache.fill import Store, fill

    root, log, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    store = Store(root, "features", {"of": "test"})

    def compute(places):
        for i in places:
            with log.open("a") as file:
                file.write(f"{i}\\n")
            if i == last:
                os.kill(os.getpid(), signal.SIGKILL)
            yield {"tokens": np.full((i % 5 + 1, 4), i, np.float32)}

    import sensorium.engine.cache.store as machinery
    machinery._SEAL_BYTES = 512  # a shard every few records
    fill(store, [f"k{i}" for i in range(60)], compute, batch_size=4)
"""


def filler(root: Path, log: Path, last: int = -1) -> subprocess.Popen[bytes]:
    """A process that fills a store of 60 rows; it is killed when it comes to row `last`."""
    code = textwrap.dedent(FILLER)
    return subprocess.Popen([sys.executable, "-c", code, str(root), str(log), str(last)])


def header_of(shard: Path) -> int:
    """Bytes before the data of a safetensors file."""
    return 8 + int.from_bytes(shard.read_bytes()[:8], "little")


@pytest.mark.slow
def test_killed_in_mid_fill_resumes_with_what_is_missing(tmp_path: Path) -> None:
    root, log = tmp_path / "cache", tmp_path / "computed.txt"
    assert filler(root, log, 33).wait() == -signal.SIGKILL
    remaining = set(Store(root, "features", {"of": "test"})._where)
    assert 12 <= len(remaining) < 60
    log.unlink()
    assert filler(root, log).wait() == 0
    computed = [f"k{i}" for i in log.read_text().split()]
    assert sorted(computed) == sorted({f"k{i}" for i in range(60)} - remaining)
    store = Store(root, "features", {"of": "test"})
    for i in range(60):
        np.testing.assert_array_equal(store.get([f"k{i}"])[0]["tokens"], expected(i))
    assert store.verify() == []


def test_a_half_written_shard_is_not_seen_and_is_swept_up(tmp_path: Path) -> None:
    store = fill_some(tmp_path)
    old, new = store.folder / ".0-old.part", store.folder / ".0-new.part"
    for part in (old, new):
        part.mkdir()
        (part / "0.safetensors").write_bytes(shards_of(store)[0].read_bytes()[:100])
    os.utime(old, (0, 0))
    assert len(Store(tmp_path, "features", {"of": "test"})) == 20
    with store.writer():
        pass
    assert not old.exists() and new.exists()  # the new one may have a living writer


@pytest.mark.slow
def test_two_processes_fill_one_store(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    both = [filler(root, tmp_path / f"{n}.txt") for n in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    store = Store(root, "features", {"of": "test"})
    assert len(store) == 60
    for i in range(60):
        np.testing.assert_array_equal(store.get([f"k{i}"])[0]["tokens"], expected(i))


@pytest.mark.parametrize("cut", [0, 5, 60, 500, -1, -30, -60])
def test_a_cut_shard_is_set_aside(tmp_path: Path, cut: int) -> None:
    store = fill_some(tmp_path, 20, shards=2)
    shard = shards_of(store)[0]
    lost = set(store._shards[shard.name].keys)
    shard.write_bytes(shard.read_bytes()[:cut])
    with pytest.warns(CacheWarning, match="set aside"):
        store = Store(tmp_path, "features", {"of": "test"})
    assert set(store.missing([f"k{i}" for i in range(20)])) == lost and len(lost) == 10
    Store(tmp_path, "features", {"of": "test"})  # it is not warned about again


def flip(path: Path, place: int | None = None) -> None:
    """Change a bit at a place, by default of the record of k4."""
    data = bytearray(path.read_bytes())
    data[data.index(expected(4).tobytes()) if place is None else place] ^= 1
    path.write_bytes(data)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(where=st.floats(0, 1, exclude_max=True))
@pytest.mark.filterwarnings("ignore::sensorium.engine.cache.store.CacheWarning")
def test_any_flipped_bit_costs_records_and_never_gives_wrong_ones(
    tmp_path_factory: pytest.TempPathFactory, where: float
) -> None:
    root = tmp_path_factory.mktemp("cache")
    shard = shards_of(fill_some(root, 6))[0]
    flip(shard, int(where * shard.stat().st_size))
    os.utime(shard, ns=(0, 0))
    store = Store(root, "features", {"of": "test"})
    for i in range(6):
        if f"k{i}" in store:
            np.testing.assert_array_equal(store.get([f"k{i}"])[0]["tokens"], expected(i))
    # What others read and we do not (a dtype, a shape, a space) may be what was flipped.
    assert len(store) < 6 or where * shard.stat().st_size < header_of(shard)


def test_a_bit_that_rots_without_a_trace_is_found_by_verify(tmp_path: Path) -> None:
    store = fill_some(tmp_path)
    (shard,) = shards_of(store)
    sealed = shard.stat().st_mtime_ns
    flip(shard)
    os.utime(shard, ns=(sealed, sealed))
    store = Store(tmp_path, "features", {"of": "test"})
    assert len(store) == 20
    assert store.verify() == ["k4"]
    assert store.missing([f"k{i}" for i in range(20)]) == ["k4"]
    assert store.verify() == []
    np.testing.assert_array_equal(store.get(["k5"])[0]["tokens"], expected(5))


def test_a_shard_that_was_only_copied_is_kept(tmp_path: Path) -> None:
    store = fill_some(tmp_path)
    (shard,) = shards_of(store)
    shard.write_bytes(shard.read_bytes())
    store = Store(tmp_path, "features", {"of": "test"})
    assert len(store) == 20
    assert not store._shards[shard.name].modified


def test_a_reader_survives_the_shard_being_rewritten(tmp_path: Path) -> None:
    store = fill_some(tmp_path)
    reader = Store(tmp_path, "features", {"of": "test"})
    (shard,) = shards_of(store)
    sealed = shard.stat().st_mtime_ns
    flip(shard)
    os.utime(shard, ns=(sealed, sealed))
    assert store.verify() == ["k4"]
    np.testing.assert_array_equal(reader.get(["k5"])[0]["tokens"], expected(5))
