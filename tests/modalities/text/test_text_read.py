"""Reading text: what is taken, what is refused, and that a preview runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium.modalities.base import ReadError
from sensorium.modalities.text.read import example, preview, read


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a cat", "a cat"),
        ("notes.txt", "notes.txt"),
        ("naïve 猫".encode(), "naïve 猫"),
        (b"\xef\xbb\xbfmarked", "marked"),
        (bytearray(b"x"), "x"),
        (np.str_("numpy"), "numpy"),
        (" ", " "),
    ],
)
def test_read(source: Any, text: str) -> None:
    result = read(source)
    assert result == text and type(result) is str


def test_a_path_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("écrit\n", encoding="utf-8")
    assert read(path) == "écrit\n"
    assert read(str(path)) == str(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "missing"),
        (float("nan"), "missing"),
        (np.float64("nan"), "missing"),
        ("", "empty"),
        (b"", "empty"),
        (3, "int is no text"),
        (1.5, "float is no text"),
        (True, "bool is no text"),
        (["a"], "list is no text"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        ("half \ud800", "half a surrogate pair at 5"),
    ],
)
def test_read_refuses(source: Any, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(source)


@pytest.mark.parametrize("content", [None, b"", b"\xff"])
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ReadError, match=r"bad\.txt: .*; expected"):
        read(path)


def test_example_is_text_and_follows_the_generator() -> None:
    first, again = (example(np.random.default_rng(3)) for _ in range(2))
    assert first == again == read(first)
    assert len({example(np.random.default_rng(seed)) for seed in range(5)}) > 1


def test_preview_is_escaped() -> None:
    assert preview("<script>alert('&')</script>") == (
        "<p>&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;</p>"
    )
