from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sensorium.engine.cache import Store, list_stores, remove_stores, verify
from sensorium.engine.cache.store import CacheWarning
from sensorium.modalities.paths import cache_root


def fill_some(root: Path) -> Store:
    store = Store(root, "features", {"of": "test"})
    with store.writer() as writer:
        for i in range(20):
            writer.put(f"k{i}", {"tokens": np.full((i % 5 + 1, 4), i, np.float32)})
    return store


def test_the_shelf_lists_verifies_and_removes(tmp_path: Path) -> None:
    assert list_stores(tmp_path) == []
    store = fill_some(tmp_path)
    other = Store(tmp_path, "samples", {"of": "other"})
    with other.writer() as writer:
        writer.put("a", {"x": np.zeros(3)})
    infos = {info.id: info for info in list_stores(tmp_path)}
    assert infos.keys() == {store.id, other.id}
    info = infos[store.id]
    assert (info.records, info.nbytes, info.level) == (20, store.nbytes, "features")
    assert info.identity == {"of": "test"} and info.path == store.folder

    (shard,) = store.folder.glob("*.safetensors")
    data = bytearray(shard.read_bytes())
    data[data.index(np.full((3, 4), 2, np.float32).tobytes())] ^= 1
    shard.write_bytes(data)
    with pytest.warns(CacheWarning, match="dropped 1 of 20"):
        assert verify(tmp_path) == {store.id: ["k2"], other.id: []}

    with pytest.raises(ValueError, match="'zz' fits 0 stores"):
        remove_stores(tmp_path, "zz")
    assert remove_stores(tmp_path, "all", older_than=3600) == []
    assert [gone.id for gone in remove_stores(tmp_path, other.id[:10])] == [other.id]
    assert [info.id for info in list_stores(tmp_path)] == [store.id]
    remove_stores(tmp_path, "all")
    assert list_stores(tmp_path) == [] and not any((tmp_path / "features").iterdir())


def test_the_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SENSORIUM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "sensorium"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "sensorium"
    monkeypatch.setenv("SENSORIUM_CACHE", "~/own")
    assert cache_root() == tmp_path / "own"
