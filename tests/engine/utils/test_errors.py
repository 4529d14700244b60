"""Whatever code of others raises reaches a user as one line that names the place."""

from __future__ import annotations

import binascii
import json
import logging
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from sensorium import __main__ as entry
from sensorium.engine.data import StreamDataset
from sensorium.engine.data.dataset import StreamReader
from sensorium.engine.data.wrappers import RowList
from sensorium.engine.recipe import load, registered
from sensorium.engine.utils import ConfigError, RuntimeFailure, culprit, located_errors
from sensorium.modalities.base import Modality, Processor, ReadError
from sensorium.modalities.messages import MESSAGE_LENGTH, describe_error, shorten


class PanicError(BaseException):
    """As pyo3 raises where Rust panics: no Exception."""


FOREIGN = [
    AssertionError(),
    AttributeError("no attribute"),
    binascii.Error("odd"),
    EOFError("ended"),
    IndexError("list index out of range"),
    KeyError("image"),
    MemoryError(),
    NotImplementedError("not here"),
    OSError(28, "No space left on device", "a/b"),
    OverflowError("too large"),
    PanicError("explicit panic"),
    RecursionError("maximum recursion depth exceeded"),
    RuntimeError("one\ntwo"),
    StopIteration(),
    struct.error("unpack requires 4 bytes"),
    TypeError("x" * 5000),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ValueError(f"found one of {', '.join(f'SomeLongClassName{i}' for i in range(200))}"),
    ZeroDivisionError("integer modulo by zero"),
    zlib.error("incorrect header check"),
]
IDS = [type(error).__name__ for error in FOREIGN]


@pytest.mark.parametrize("foreign", FOREIGN, ids=IDS)
def test_a_foreign_error_becomes_one_line_with_its_cause(foreign: BaseException) -> None:
    with pytest.raises(ConfigError) as caught, located_errors("inputs.a.encoder"):
        raise foreign
    line = str(caught.value)
    assert caught.value.__cause__ is foreign
    assert line.startswith("inputs.a.encoder: ") and "\n" not in line
    assert len(line) <= MESSAGE_LENGTH + 60
    assert not line.endswith(": ")


@pytest.mark.parametrize("ours", [ConfigError("train.x: no"), RuntimeFailure("loss is nan")])
def test_an_error_of_ours_passes_unchanged(ours: Exception) -> None:
    with pytest.raises(type(ours)) as caught, located_errors("inputs.a.encoder"):
        raise ours
    assert caught.value is ours


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stop_is_no_error(stop: type[BaseException]) -> None:
    with pytest.raises(stop), located_errors("inputs.a.encoder"):
        raise stop


def test_the_options_are_listed_where_a_library_names_none() -> None:
    values = {"name": "x", "options": {"a": 0}}
    with pytest.raises(ConfigError) as caught, located_errors("backbone", values=values):
        raise ZeroDivisionError("integer modulo by zero")
    assert str(caught.value).endswith(" (built from name: x, options: {'a': 0})")
    with pytest.raises(ConfigError) as caught, located_errors("a.b", {"n"}, values={"n": 0}):
        raise ValueError("n: found 0")
    assert str(caught.value) == "a.b.n: found 0"


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    text = shorten("begin " + "middle " * 1000 + "end")
    assert len(text) <= MESSAGE_LENGTH and text.startswith("begin") and text.endswith("end")
    assert shorten("short\n text") == "short text"


def test_a_file_error_names_the_file() -> None:
    with pytest.raises(OSError) as caught:
        Path("/no/such/file").read_bytes()
    assert describe_error(caught.value) == "/no/such/file: No such file or directory"


class _Cell:
    """A cell that raises whatever is asked of it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def read(self, *_: Any) -> bytes:
        raise self.error

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise self.error

    def __fspath__(self) -> str:
        raise self.error


@pytest.mark.parametrize("modality", registered("modality"))
@pytest.mark.parametrize("foreign", FOREIGN, ids=IDS)
def test_a_modality_reads_or_raises_read_error(modality: str, foreign: BaseException) -> None:
    declared: Modality = load(registered("modality")[modality])
    with pytest.raises(ReadError) as caught:
        load(declared.read)(_Cell(foreign))
    assert "\n" not in str(caught.value)


class _Raises(Processor):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def prepare(self, raw: Any) -> Any:
        raise self.error


class _Returns(Processor):
    def __init__(self, value: Any) -> None:
        self.value = value

    def prepare(self, raw: Any) -> Any:
        return self.value


@pytest.mark.parametrize("where", ["read", "prepare"])
@pytest.mark.parametrize("foreign", FOREIGN, ids=IDS)
def test_a_row_fails_by_itself_whatever_its_part_raises(
    foreign: BaseException, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    def read(cell: Any) -> Any:
        if where == "read":
            raise foreign
        return cell

    rows = StreamDataset(RowList([{"x": "a.png"}]), {"x": StreamReader(read, _Raises(foreign))})
    with caplog.at_level(logging.DEBUG, "sensorium"):
        failure = rows.prepare(0).failure
    assert failure is not None and failure.startswith("a.png: cannot be ") and "\n" not in failure
    assert any(record.exc_info for record in caplog.records)  # what `--debug` shows


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "a NoneType"), ([1], "a list"), ({"a": 1}, "a dict of int")],
)
def test_a_processor_that_returns_no_sample_is_named(value: Any, words: str) -> None:
    rows = StreamDataset(RowList([{"x": 1}]), {"x": StreamReader(lambda x: x, _Returns(value))})
    assert f"_Returns.prepare returned {words}; expected a dict" in str(rows.prepare(0).failure)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("foreign", [KeyError("gone"), OSError(30, "Read-only file system", "x")])
def test_the_command_line_shows_a_traceback_with_debug_alone(
    foreign: Exception, debug: bool, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise foreign

    monkeypatch.setattr("sensorium.scripts.app.command", lambda: fail)
    monkeypatch.setattr(sys, "argv", ["sensorium", "info", *(["--debug"] if debug else [])])
    with pytest.raises(SystemExit) as end:
        entry.main()
    err = capsys.readouterr().err
    assert end.value.code == 1
    assert ("Traceback" in err) == debug
    assert err.splitlines()[-1].startswith("error: ")
    assert describe_error(foreign) in err


def test_debug_stands_anywhere_and_reaches_no_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "r.yaml").write_text(json.dumps({"tasks": 3}))
    for place in range(1, 4):
        words = ["sensorium", "check", str(tmp_path / "r.yaml")]
        words.insert(place, "--debug")
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            entry.main()
        assert end.value.code == 2 and "Traceback" in capsys.readouterr().err


def test_the_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["sensorium", "--version"])
    with pytest.raises(SystemExit) as end:
        entry.main()
    assert not end.value.code and capsys.readouterr().out[0].isdigit()


def _network(heads: int = 2, width: int = 8, options: dict[str, Any] | None = None) -> None:
    """A constructor that fails as libraries do, without a name."""
    options = {"layers": 1, "activation": "relu", **(options or {})}
    if options["activation"] not in ("relu", "gelu"):
        raise KeyError(options["activation"])
    if not isinstance(options["layers"], int):
        raise TypeError(f"field 'layers' is {options['layers']!r}")
    struct.pack(f"{width % heads * 0 + options['layers'] * width}x")
    if width == 9:
        raise ValueError("width: found 9, expected an even number")


CULPRITS: list[tuple[dict[str, Any], str | None]] = [
    ({"heads": 0}, "heads: found 0: ZeroDivisionError"),
    ({"width": -4, "heads": 1}, "width: found -4: error: bad char"),
    ({"width": 4, "options": {"layers": -1}}, "options.layers: found -1: error: bad char"),
    ({"options": {"layers": 2, "activation": "foo"}}, "options.activation: found 'foo': "),
    ({"options": {"layers": "two"}}, "options.layers: found 'two': TypeError: field"),
    ({"width": 9}, None),
    ({"width": -4, "heads": 1, "options": {"layers": 1}}, "width: found -4"),
    ({"width": -4, "heads": 1, "options": {"layers": 2}}, "width: found -4"),
    ({"width": -4, "options": {"activation": "foo"}}, None),
]


@pytest.mark.parametrize(("options", "expected"), CULPRITS)
def test_the_option_to_blame_is_found_by_trial(
    options: dict[str, Any], expected: str | None
) -> None:
    with pytest.raises(Exception) as caught:
        _network(**options)
    line = culprit(lambda changed: _network(**changed), options, caught.value)
    assert line is None if expected is None else (line or "").startswith(expected)
