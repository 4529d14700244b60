"""The docstrings of the standard library are those that Python itself finds."""

from __future__ import annotations

import inspect
import textwrap

import pytest

from sensorium.modalities.text.datasets.docstrings import Docstrings

MODULES = ["textwrap", "heapq", "copy", "calendar"]


def test_texts_are_those_of_inspect() -> None:
    rows = {row["name"]: row["text"] for row in Docstrings(split="train", modules=MODULES)}
    assert rows["textwrap.TextWrapper"] == inspect.getdoc(textwrap.TextWrapper)
    assert rows["textwrap.TextWrapper.wrap"] == inspect.getdoc(textwrap.TextWrapper.wrap)


def test_a_module_is_of_one_split() -> None:
    modules = [
        {row["name"].partition(".")[0] for row in Docstrings(split=split, modules=MODULES)}
        for split in ("train", "test")
    ]
    assert all(modules) and not modules[0] & modules[1]


def test_an_unknown_module_is_one_line() -> None:
    with pytest.raises(ValueError, match="modules: found 'textwarp'") as error:
        Docstrings(split="train", modules=["textwarp"])
    assert "\n" not in str(error.value)


def test_siblings_are_other_docstrings_of_the_module() -> None:
    rows = [*Docstrings(split="train", modules=["heapq", "textwrap"], siblings=2)]
    for row in rows:
        assert row["text"] not in row["siblings"] and len(row["siblings"]) == 2
        module = row["name"].partition(".")[0]
        texts = {r["text"] for r in rows if r["name"].partition(".")[0] == module}
        assert set(row["siblings"]) <= texts
    assert all(not row["siblings"] for row in Docstrings(split="train", modules=["heapq"]))
