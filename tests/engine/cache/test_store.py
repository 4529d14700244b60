from __future__ import annotations

import json
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
from sensorium.testing.common import copy_for_worker
from sensorium.tests.engine.cache.store_cases import expected, fill_some, shards_of


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


@pytest.mark.slow
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
    other = copy_for_worker(store)
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


def test_a_reader_sees_what_another_store_object_wrote(tmp_path: Path) -> None:
    reader = Store(tmp_path, "features", {"of": "test"})
    fill_some(tmp_path)
    assert len(reader) == 0
    reader.refresh()
    assert len(reader) == 20
