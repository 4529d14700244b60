"""`check_fittable` names what a fitted part violates; every one of the package passes."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import sensorium.tasks
from sensorium.modalities import action, series, text
from sensorium.modalities.base import Fittable
from sensorium.testing import check_fittable

TEXTS = ["a red robot", "the small robot pushes a blue puck", "né 猫"]
CHUNKS = [np.sin(np.arange(16)[:, None] * speed + [0, 1, 2]) for speed in (0.1, 0.3, 0.7, 1.1)]


class Mean(Fittable):
    """The mean of numbers."""

    def __init__(self, *, scale: float = 1.0) -> None:
        self.scale = scale
        self.mean: float | None = None

    def fit(self, rows: Iterable[Any]) -> None:
        self.mean = float(np.mean(list(rows))) * self.scale

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "values": np.array([self.mean], np.float64)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.mean = state["mean"]


class Random(Mean):
    def fit(self, rows: Iterable[Any]) -> None:
        self.mean = float(np.random.default_rng().normal())


class Forgetful(Mean):
    def load_state(self, state: Mapping[str, Any]) -> None:
        self.mean = 0.0


class Opaque(Mean):
    def state(self) -> dict[str, Any]:
        return {"mean": {1.0, 2.0}}


class Holding(Mean):
    def fit(self, rows: Iterable[Any]) -> None:
        super().fit(rows)
        self.function = lambda: 0


class Charting(Mean):
    def charts(self) -> Any:
        return ["a chart"]


BROKEN: dict[type[Fittable], str] = {
    Random: "fit: fitting twice on equal rows yields two states",
    Forgetful: "load_state: the state written and read back differs",
    Opaque: "state: TypeError",
    Holding: "in a worker: ",
    Charting: "charts: are no Charts",
}


def test_a_good_part_passes() -> None:
    check_fittable(Mean, [1.0, 2.0], scale=2.0)


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.__name__)
def test_a_violation_is_one_line(cls: type[Fittable]) -> None:
    with pytest.raises(AssertionError) as error:
        check_fittable(cls, [1.0, 2.0])
    line = str(error.value)
    assert line.startswith(f"{cls.__name__}, ") and BROKEN[cls] in line and "\n" not in line, line


SIGNALS = [np.arange(12.0).reshape(2, 6), np.ones((2, 9))]
CASES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "BPE": (TEXTS, {"size": 300}),
    "BytePairs": (SIGNALS, {"merges": 10}),
    "BSplineTokenizer": (CHUNKS, {"num_basis": 6}),
    "BinTokenizer": (CHUNKS, {}),
    "Bytes": (TEXTS, {}),
    "Characters": (TEXTS, {}),
    "ChunkStatistics": ([(c, np.zeros(16, bool)) for c in CHUNKS], {}),
    "FastTokenizer": (CHUNKS, {}),
    "CategoryEncoder": ([{"age": 1, "place": "x"}, {"age": 3, "place": "y"}], {}),
    "LabelEncoder": ([{"kind": "a"}, {"kind": "b"}], {}),
    "Lexicon": (TEXTS, {}),
    "LinearBaseline": ([(("a", "b"), SIGNALS[0][:, :4], SIGNALS[0][:, 4:])] * 3, {}),
    "Normalizer": (CHUNKS, {}),
    "Nucleotides": (["ACGTN", "GGCA"], {}),
    "Phrases": (TEXTS, {"min_count": 1}),
    "Preprocessing": (SIGNALS, {"normalize": "fitted"}),
    "Standardizer": ([[1.0, 2.0], [3.0, 5.0]], {}),
}
BOUND = {"CategoryEncoder": ["age", "place"], "LabelEncoder": "kind"}
"""Those whose task names a column first."""

NOT_FITTED = {"PretrainedTokenizer", "_Backed"}
"""A checkpoint's own tokenizer, and the class that it shares with `BPE`."""


def concrete(cls: type) -> Iterator[type[Fittable]]:
    for each in cls.__subclasses__():
        if not getattr(each, "__abstractmethods__", None):
            yield each
        yield from concrete(each)


def fitted() -> dict[str, type[Fittable]]:
    packages = (action, series, text, sensorium.tasks)
    for package in packages:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    names = tuple(f"{package.__name__}." for package in packages)
    return {c.__name__: c for c in concrete(Fittable) if c.__module__.startswith(names)}


def test_every_fitted_part_has_a_case() -> None:
    pytest.importorskip("metaworld")
    assert set(fitted()) == set(CASES) | NOT_FITTED


@pytest.mark.parametrize("name", CASES)
def test_a_fitted_part_meets_the_contract(name: str) -> None:
    pytest.importorskip("metaworld")
    (rows, options), cls = CASES[name], fitted()[name]

    def bound() -> Any:
        built: Any = cls()
        built.set_columns(BOUND[name])
        return built

    check_fittable(bound if name in BOUND else cls, rows, **options)
