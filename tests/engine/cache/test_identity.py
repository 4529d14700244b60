"""The identity of an encoder in the cache: equal encoders share it, every change is a miss."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sensorium.engine.cache import (
    Store,
    processor_identity,
    read_identity,
    weights_hash,
)
from sensorium.engine.utils import RuntimeFailure
from sensorium.modalities.base import Fittable, Processor
from sensorium.tests.engine.cache.fill_cases import Scale, Tiny, identity


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
