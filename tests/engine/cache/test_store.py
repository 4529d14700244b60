from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.torch import save_file

from sensorium.engine.cache import Record, Store, list_stores, remove_stores
from sensorium.engine.cache import store as store_module
from sensorium.engine.cache.shard import BF16
from sensorium.engine.cache.store import CacheWarning

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


def expected(i: int) -> np.ndarray:
    return np.full((i % 5 + 1, 4), i, np.float32)


def filler(root: Path, log: Path, last: int = -1) -> subprocess.Popen[bytes]:
    """A process that fills a store of 60 rows; it is killed when it comes to row `last`."""
    code = textwrap.dedent(FILLER)
    return subprocess.Popen([sys.executable, "-c", code, str(root), str(log), str(last)])


def fill_some(root: Path, count: int = 20, shards: int = 1) -> Store:
    store = Store(root, "features", {"of": "test"})
    with store.writer() as writer:
        for i in range(count):
            writer.put(f"k{i}", {"tokens": expected(i)})
            if (i + 1) % (count // shards) == 0:
                writer.flush()
    return store


def header_of(shard: Path) -> int:
    """Bytes before the data of a safetensors file."""
    return 8 + int.from_bytes(shard.read_bytes()[:8], "little")


def shards_of(store: Store) -> list[Path]:
    return sorted(store.folder.glob("*.safetensors"))


def same(one: Record, two: Record) -> bool:
    """True for the same names, values, shapes and kinds; a shard has little-endian numbers."""
    little = {n: array.astype(array.dtype.newbyteorder("<")) for n, array in two.items()}
    return one.keys() == two.keys() and all(
        one[n].dtype == little[n].dtype
        and one[n].shape == little[n].shape
        and one[n].tobytes() == little[n].tobytes()
        for n in one
    )


arrays = st.one_of(
    hnp.arrays(
        st.sampled_from(["f4", "f2", "f8", "i8", "u1", "?", "c8", ">i2"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    hnp.arrays("<u2", hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=5)).map(
        lambda bits: bits.view(BF16)
    ),
)
records = st.dictionaries(st.text(max_size=6), arrays, max_size=4)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.dictionaries(st.text(max_size=8), records, max_size=6), cut=st.integers(1, 6))
def test_records_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, Record], cut: int
) -> None:
    root = tmp_path_factory.mktemp("cache")
    with Store(root, "samples", {}).writer() as writer:
        for i, (key, record) in enumerate(rows.items()):
            writer.put(key, record)
            if i % cut == 0:
                writer.flush()
    store = Store(root, "samples", {})
    assert len(store) == len(rows)
    for got, put in zip(store.get(list(rows)), rows.values(), strict=True):
        assert same(got, put)


def test_a_record_is_a_read_only_view_that_outlives_its_shard(tmp_path: Path) -> None:
    store = fill_some(tmp_path)
    (record,) = store.get(["k3"])
    assert not record["tokens"].flags.owndata and not record["tokens"].flags.writeable
    remove_stores(tmp_path, "all")
    store.refresh()
    assert len(store) == 0
    np.testing.assert_array_equal(record["tokens"], expected(3))


def test_a_shard_opens_with_the_library_of_its_format(tmp_path: Path) -> None:
    """Records of one layout are stacked, in the order of the keys."""
    bits = np.arange(6, dtype="<u2").view(BF16)
    with Store(tmp_path, "features", {}).writer() as writer:
        for i in (0, 1, 5, 6):
            writer.put(f"k{i}", {"tokens": expected(i), "layers.0.tokens": bits})
    (shard,) = shards_of(Store(tmp_path, "features", {}))
    with safe_open(shard, framework="pt") as file:
        keys = json.loads(file.metadata()["keys"])
        tensors = file.get_tensors()
    assert keys == ["k0", "k5", "k1", "k6"]
    assert {name: (str(t.dtype), tuple(t.shape)) for name, t in tensors.items()} == {
        "0/tokens": ("torch.float32", (2, 1, 4)),
        "1/tokens": ("torch.float32", (2, 2, 4)),
        "0/layers.0.tokens": ("torch.bfloat16", (2, 6)),
        "1/layers.0.tokens": ("torch.bfloat16", (2, 6)),
    }
    for name, places in (("0/tokens", (0, 5)), ("1/tokens", (1, 6))):
        np.testing.assert_array_equal(tensors[name], np.stack([expected(i) for i in places]))
    assert tensors["0/layers.0.tokens"].view(torch.int16)[1].tolist() == list(range(6))


def test_views_lie_where_their_dtype_wants_them(tmp_path: Path) -> None:
    record = {"a": np.ones(3, np.uint8), "b": np.ones(3, np.float64), "c": np.ones(1, np.float16)}
    with Store(tmp_path, "features", {}).writer() as writer:
        for i in range(5):
            writer.put(str(i), record)
    for read in Store(tmp_path, "features", {}).get([*"01234"]):
        assert all(array.flags.aligned for array in read.values())


def test_many_small_records_are_several_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_SEAL_ROWS", 8)
    store = Store(tmp_path, "features", {})
    with store.writer() as writer:
        for i in range(20):
            writer.put(f"k{i}", {"tokens": expected(i)})
    assert [len(shard.keys) for shard in store._shards.values()].count(8) == 2


@pytest.mark.parametrize("other", ["0000001-a.shard", "0000001-a.safetensors"])
def test_shards_of_another_version_are_ignored_in_one_line(tmp_path: Path, other: str) -> None:
    store = fill_some(tmp_path, 4)
    path = store.folder / other
    metadata = {"format": "sensorium", "version": "1"}
    save_file({"tokens": torch.zeros(3)}, path, metadata)
    with pytest.warns(CacheWarning) as warned:
        again = Store(tmp_path, "features", {"of": "test"})
    (line,) = {str(each.message) for each in warned}
    assert "another version" in line and f"sensorium cache rm {store.id[:12]}" in line
    assert "\n" not in line
    assert len(again) == 4 and path.exists()
    again.refresh()
    assert again.verify() == [] and path.exists()
    (info,) = list_stores(tmp_path)
    assert (info.records, info.nbytes) == (4, store.nbytes + path.stat().st_size)
    assert [each.id for each in remove_stores(tmp_path, store.id[:12])] == [store.id]
    assert not path.exists()


def test_more_shards_than_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_OPEN_SHARDS", 2)
    store = fill_some(tmp_path, 20, shards=10)
    assert len(shards_of(store)) == 10
    for i, record in enumerate(store.get([f"k{i}" for i in range(20)])):
        np.testing.assert_array_equal(record["tokens"], expected(i))
    assert sum(shard.is_open for shard in store._shards.values()) <= 2


def test_missing_and_unknown_keys(tmp_path: Path) -> None:
    store = fill_some(tmp_path)
    assert store.missing(["x", "k1", "y", "x"]) == ["x", "y"]
    assert store.has(["k1", "k2"]) and not store.has(["k1", "x"]) and "k1" in store
    with pytest.raises(KeyError, match="no record 'x' among 20"):
        store.get(["k1", "x"])


def test_a_store_goes_to_another_process_by_its_identity(tmp_path: Path) -> None:
    store = fill_some(tmp_path)
    other = pickle.loads(pickle.dumps(store))
    assert same(other.get(["k7"])[0], store.get(["k7"])[0])


def test_another_identity_is_another_store(tmp_path: Path) -> None:
    ids = {
        Store(tmp_path, level, identity).id
        for level in ("samples", "features")
        for identity in ({}, {"a": 1}, {"a": 2}, {"a": 1.5}, {"a": [1]}, {"b": 1})
    }
    assert len(ids) == 12
    assert Store(tmp_path, "samples", {"a": 1, "b": 2}).id == (
        Store(tmp_path, "samples", {"b": 2, "a": 1}).id
    )
    with pytest.raises(TypeError, match="must be JSON"):
        Store(tmp_path, "samples", {"a": object()})


def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    with (
        Store(tmp_path, "samples", {}).writer() as writer,
        pytest.raises(TypeError, match="'names' has dtype"),
    ):
        writer.put("k", {"names": np.array(["a", "b"])})
    with (
        Store(tmp_path, "samples", {}).writer() as writer,
        pytest.raises(TypeError, match="'wave' has dtype complex128"),
    ):
        writer.put("k", {"wave": np.zeros(2, complex)})


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


def test_a_reader_sees_what_another_store_object_wrote(tmp_path: Path) -> None:
    reader = Store(tmp_path, "features", {"of": "test"})
    fill_some(tmp_path)
    assert len(reader) == 0
    reader.refresh()
    assert len(reader) == 20


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
