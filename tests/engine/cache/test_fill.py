from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from sensorium.engine.cache import (
    Store,
    content_hash,
    fill,
    from_records,
    to_records,
)
from sensorium.engine.cache.fill import estimate, require_space
from sensorium.engine.cache.keys import add_content_hash
from sensorium.engine.utils import RuntimeFailure
from sensorium.modalities.base import Features
from sensorium.tests.engine.cache.fill_cases import Tiny, identity


class Disk(NamedTuple):
    total: int
    used: int
    free: int


def record(i: int) -> dict[str, np.ndarray]:
    return {"x": np.full(100, i, np.float32)}


def test_fill_computes_what_is_missing_once_and_in_order(tmp_path: Path) -> None:
    store = Store(tmp_path, "samples", {})
    seen: list[list[int]] = []
    messages: list[tuple[int, int]] = []

    def compute(places: list[int]) -> list[dict[str, np.ndarray]]:
        seen.append(places)
        return [record(i) for i in places]

    keys = ["a", "b", "a", "c", "d", "b", "e"]
    done = fill(store, keys[:2], compute, batch_size=3)
    assert (done.computed, done.skipped, seen) == (2, [], [[0, 1]])
    seen.clear()
    done = fill(
        store,
        keys,
        compute,
        batch_size=2,
        progress=lambda now, count: messages.append((now, count)),
    )
    assert (done.computed, seen, messages) == (3, [[3, 4], [6]], [(2, 3), (3, 3)])
    assert [int(r["x"][0]) for r in store.get(list("abcde"))] == [0, 1, 3, 4, 6]
    assert fill(store, keys, compute, batch_size=2).computed == 0


def test_a_row_that_cannot_be_read_stays_missing(tmp_path: Path) -> None:
    store = Store(tmp_path, "samples", {})
    done = fill(
        store,
        ["a", "b", "c"],
        lambda places: [None if i == 1 else record(i) for i in places],
        batch_size=2,
    )
    assert (done.computed, done.skipped, store.missing("abc")) == (2, ["b"], ["b"])


def test_an_error_keeps_what_was_computed(tmp_path: Path) -> None:
    store = Store(tmp_path, "samples", {})

    def compute(places: list[int]) -> list[dict[str, np.ndarray]]:
        if 2 in places:
            raise ZeroDivisionError
        return [record(i) for i in places]

    with pytest.raises(ZeroDivisionError):
        fill(store, ["a", "b", "c", "d"], compute, batch_size=2)
    assert store.missing("abcd") == ["c", "d"]
    with pytest.raises(RuntimeFailure, match="2 rows returned 1 records"):
        fill(store, ["c", "d"], lambda places: [record(0)], batch_size=2)


def test_the_estimate_is_what_the_disk_then_holds(tmp_path: Path) -> None:
    store = Store(tmp_path, "samples", {})
    keys = [f"/some/folder/picture_{i:05d}.jpg" for i in range(500)]
    fill(store, keys, lambda places: map(record, places), batch_size=50)
    on_disk = sum(file.stat().st_size for file in store.folder.glob("*.safetensors"))
    assert on_disk == store.nbytes
    assert 0.8 * on_disk <= estimate([record(0), record(1)], 500) <= 1.25 * on_disk


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(10**9, 10**9, 10_000))
    store = Store(tmp_path / "cache", "samples", {})
    with pytest.raises(
        RuntimeFailure, match=r"needs 0\.05 GB, 0\.00 GB are free; set SENSORIUM_CACHE"
    ):
        fill(store, [str(i) for i in range(10**5)], lambda p: map(record, p), batch_size=8)
    assert not list(store.folder.glob("*.safetensors"))
    require_space(tmp_path / "not" / "yet", 10_000)
    with pytest.raises(RuntimeFailure):
        require_space(tmp_path / "not" / "yet", 10_001)


def test_verify_drops_what_was_made_from_something_else(tmp_path: Path) -> None:
    samples = {key: {"x": torch.randn(3)} for key in "abc"}
    store = Store(tmp_path, "features", {})
    fill(
        store,
        list("abc"),
        lambda places: (add_content_hash(record(i), samples["abc"[i]]) for i in places),
        batch_size=3,
    )
    today = {key: content_hash(sample) for key, sample in samples.items()}
    assert store.verify(today.get) == []
    today["b"] = content_hash({"x": torch.randn(3)})
    del today["c"]
    assert store.verify(today.get) == ["b"]
    assert store.has(["a", "c"])


def test_the_same_losses_with_and_without(tmp_path: Path) -> None:
    """A frozen encoder's features from the store train a head exactly as fresh ones do."""
    encoder, data = Tiny().eval(), torch.randn(12, 5, 3)
    store = Store(tmp_path, "features", identity(encoder))
    keys = [str(i) for i in range(12)]

    def encode(places: list[int]) -> Features:
        with torch.no_grad():
            value: Features = encoder(data[places])
        return value

    fill(store, keys, lambda places: to_records(encode(places)), batch_size=5)

    def losses(cached: bool) -> list[float]:
        torch.manual_seed(0)
        head = nn.Linear(4, 2)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
        result = []
        for step in range(8):
            places = [(step * 3 + i) % 12 for i in range(4)]
            value = from_records(store.get([keys[i] for i in places])) if cached else encode(places)
            loss = head(value.mean()).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            result.append(loss.item())
        return result

    assert losses(True) == pytest.approx(losses(False), abs=1e-6)
