"""Public faces of packages: what they export, and when it is imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

FACE = """
from sensorium.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {"train": ["train"], "other": ["Other"]})
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    folder = tmp_path / "a_lazy_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(FACE)
    (folder / "train.py").write_text("def train():\n    return 1\n\n\nHIDDEN = 2\n")
    (folder / "other.py").write_text("from .train import train\n\nOther = train()\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder.name
    for name in [n for n in sys.modules if n.partition(".")[0] == folder.name]:
        del sys.modules[name]


def test_a_file_is_imported_when_its_name_is_used(package: str) -> None:
    face = import_module(package)
    assert face.__all__ == dir(face) == ["Other", "train"]
    assert f"{package}.train" not in sys.modules
    assert face.train() == 1
    assert f"{package}.train" in sys.modules and f"{package}.other" not in sys.modules


def test_a_name_wins_over_its_file(package: str) -> None:
    face = import_module(package)
    assert import_module(f"{package}.other").Other == 1
    assert callable(face.train)
    assert import_module(f"{package}.train").HIDDEN == 2


def test_other_names_are_refused(package: str) -> None:
    face = import_module(package)
    with pytest.raises(AttributeError, match="has no attribute 'HIDDEN'"):
        _ = face.HIDDEN
    with pytest.raises(ImportError, match="cannot import name 'HIDDEN'"):
        exec(f"from {package} import HIDDEN", {})


def test_the_value_is_the_one_of_the_file_now(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = import_module(package)
    monkeypatch.setattr(import_module(f"{package}.train"), "train", lambda: 3)
    assert face.train() == 3
