from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sensorium.engine.cache import (
    Store,
    content_hash,
    encoder_identity,
    fill,
    from_records,
    processor_identity,
    read_identity,
    to_records,
    weights_hash,
)
from sensorium.engine.cache.fill import estimate, require_space
from sensorium.engine.cache.keys import add_content_hash
from sensorium.engine.utils import RuntimeFailure
from sensorium.modalities.base import Encoder, Features, Fittable, Processor


@dataclass
class Scale(Processor):
    factor: float = 2.0
    shape: tuple[int, ...] = (2, 3)

    def prepare(self, raw: Any) -> dict[str, Tensor]:
        return {"x": torch.as_tensor(raw) * self.factor}


READ = "sensorium.modalities.image.read:read"


class Tiny(Encoder):
    dim = 4

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(3, 4)
        self.register_buffer("shift", torch.zeros(4, dtype=torch.bfloat16))
        self.processor = Scale()

    def forward(self, x: Tensor) -> Features:
        return Features.dense(self.linear(x) + self.shift)


def identity(encoder: Encoder | None = None, **changes: Any) -> dict[str, Any]:
    options = {"read": READ, "layers": (), "precision": "float32", **changes}
    return encoder_identity(encoder or Tiny(), **options)


def test_an_equal_encoder_has_an_equal_identity() -> None:
    assert identity() == identity()
    assert (
        Store(Path("x"), "features", identity()).id == Store(Path("x"), "features", identity()).id
    )


def test_whatever_changes_the_features_changes_the_identity() -> None:
    changed = [identity(), identity(Tiny(seed=1)), identity(layers=(1,)), identity(layers=(1, 2))]
    changed += [identity(precision="float16"), identity(options={"heads": 2})]
    changed += [
        identity(read=f"sensorium.modalities.{name}.read:read") for name in ("text", "audio")
    ]
    encoder = Tiny()
    with torch.no_grad():
        encoder.linear.weight[0, 0] = torch.nextafter(
            encoder.linear.weight[0, 0], torch.tensor(torch.inf)
        )
    changed.append(identity(encoder))
    encoder = Tiny()
    encoder.shift[3] = -0.0
    changed.append(identity(encoder))
    for processor in (Scale(factor=2.5), Scale(shape=(3, 2))):
        encoder = Tiny()
        encoder.processor = processor
        changed.append(identity(encoder))
    ids = [Store(Path("x"), "features", each).id for each in changed]
    assert len(set(ids)) == len(changed)


def test_names_and_shapes_are_part_of_the_hash() -> None:
    one = nn.ParameterDict({"a": torch.zeros(2, 3)})
    others = [{"b": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)}, {"a": torch.zeros(2, 3).double()}]
    assert weights_hash(one) == weights_hash(nn.ParameterDict({"a": torch.zeros(2, 3)}))
    assert len({weights_hash(m) for m in (one, *map(nn.ParameterDict, others))}) == 4
    with pytest.raises(RuntimeFailure, match="meta device"):
        weights_hash(nn.Linear(2, 2, device="meta"))


ENCODER = "from sensorium.modalities.base import Encoder, Processor\n"
MINE = (
    "class Mine(Encoder):\n"
    "    dim = 2\n"
    "    def __init__(self):\n"
    "        super().__init__()\n"
    "        self.processor = Processor()\n"
)


def test_a_strangers_changed_code_is_a_miss(tmp_path: Path) -> None:
    code = ENCODER + MINE
    result = []
    for number, text in enumerate((code, code, code + "# another line\n")):
        file = tmp_path / str(number) / "mine.py"
        file.parent.mkdir()
        file.write_text(text)
        spec = importlib.util.spec_from_file_location("mine", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "mine", module)
            spec.loader.exec_module(module)
            result.append(identity(module.Mine()))
    assert result[0] == result[1] != result[2]


FILES = {
    "my_parts/__init__.py": "from .inner import scale",
    "my_parts/encoder.py": ENCODER + "from .inner import scale\n" + MINE,
    "my_parts/inner/__init__.py": "from .tools import scale",
    "my_parts/inner/tools.py": "import my_helper\ndef scale(x): return x",
    "my_parts/inner/unrelated.py": "",
    "my_parts/signals.py": "def read(x):\n    from .lazily import decode\n    return decode(x)",
    "my_parts/lazily.py": "def decode(cell): return cell",
    "my_helper.py": "from my_parts.inner import tools",  # a circle
    "stranger.py": "",
}
"""A project: a package whose parts import one another, and a module beside it."""


@pytest.mark.parametrize(
    ("file", "encoder", "reader"),
    [
        ("my_parts/encoder.py", True, False),
        ("my_parts/inner/tools.py", True, False),
        ("my_helper.py", True, False),
        ("my_parts/signals.py", False, True),
        ("my_parts/lazily.py", False, True),
        ("my_parts/inner/unrelated.py", False, False),
        ("stranger.py", False, False),
    ],
)
def test_changed_code_that_a_part_imports_is_a_miss(
    tmp_path: Path, file: str, encoder: bool, reader: bool
) -> None:
    seen: list[list[list[str]]] = []
    for place in ("before", "after"):
        for name, text in FILES.items():
            path = tmp_path / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + ("\n# more\n" if (place, name) == ("after", file) else "\n"))
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(tmp_path / place))
            part = importlib.import_module("my_parts.encoder").Mine()
            inner = importlib.import_module("my_parts.inner.tools")
            assert inner.__file__ == str(tmp_path / place / "my_parts/inner/tools.py")
            both = identity(part)["source"], read_identity("my_parts.signals:read")["source"]
            seen.append(list(both))
        for name in [n for n in sys.modules if n.partition(".")[0] in ("my_parts", "my_helper")]:
            del sys.modules[name]
    (part_before, read_before), (part_after, read_after) = seen
    assert (part_before != part_after) == encoder
    assert (read_before != read_after) == reader


class Mean(Fittable):
    def __init__(self, mean: np.ndarray) -> None:
        self.mean = mean

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state(self, state: Any) -> None:
        self.mean = state["mean"]


class Fit(Processor):
    def __init__(self, mean: Mean, **more: Any) -> None:
        self.fitted = mean
        self.more = more


def test_a_fitted_state_is_part_of_the_identity() -> None:
    one, two = Mean(np.array([1.0, 2.0])), Mean(np.array([1.0, 2.5]))
    assert processor_identity(Fit(one)) == processor_identity(Fit(Mean(np.array([1.0, 2.0]))))
    assert processor_identity(Fit(one)) != processor_identity(Fit(two))
    with pytest.raises(TypeError, match="object has no settings that could be a key of the cache"):
        processor_identity(Fit(one, thing=object()))


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
    with pytest.raises(RuntimeFailure, match="2 rows gave 1 records"):
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
