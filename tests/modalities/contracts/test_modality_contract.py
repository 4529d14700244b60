"""Every modality meets the contract that `sensorium.testing` checks; violations are one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sensorium.engine.recipe import registered, registry
from sensorium.testing import check_modality

NEEDS = {"action": "metaworld", "audio": "soundfile", "mri": "monai", "mri_mask": "monai"}


@pytest.mark.parametrize("name", registered("modality"))
def test_a_modality_meets_the_contract(name: str) -> None:
    pytest.importorskip(NEEDS.get(name, "PIL"))
    check_modality(name)


FILE = """
from sensorium.modalities.base import Encoder, Modality

def read(cell): return cell
def nothing(cell): return None
def texts(cell): return ["a.txt"]
def example(rng): return 1.0
def script(raw, annotations): return "<script>1</script>"
def blank(raw, annotations): return ""
def listing(rng, again): return ""
class Rows: ...
class World:
    def __init__(self, task): ...
    def reset(self): ...
    def step(self): ...
    def render(self): ...
    def close(self): ...
class Instructing(World):
    def __init__(self, task, *, cameras, size): ...
    @staticmethod
    def instruction(task): ...

GOOD = Modality(example="my_signals:example")
GONE = Modality(read="my_signals:gone")
VALUE = Modality(read="my_signals:GOOD")
NOTHING = Modality(example="my_signals:example", read="my_signals:nothing")
NAMES = Modality(example="my_signals:example", files="my_signals:texts")
FAILING = Modality(example="my_signals:listing")
SCRIPT = Modality(example="my_signals:example", preview="my_signals:script")
BLANK = Modality(example="my_signals:example", preview="my_signals:blank")
NO_ENCODER = Modality(encoders={"rows": "my_signals:Rows"})
NO_SOURCE = Modality(sources={"rows": "my_signals:Rows"})
NO_WORLD = Modality(envs={"rows": "my_signals:Rows"})
BARE_WORLD = Modality(envs={"world": "my_signals:World"})
INSTRUCTING = Modality(envs={"world": "my_signals:Instructing"})
THING = 3
"""

BROKEN = {
    "GONE": "declaration: AttributeError",
    "VALUE": "declaration: read: my_signals:GOOD cannot be called",
    "NOTHING": "read: returns None for an example",
    "NAMES": "files: returns ['a.txt'], expected a list of Paths",
    "FAILING": "example: TypeError",
    "SCRIPT": "preview: holds a script, which no report runs",
    "BLANK": "preview: returns '', expected HTML",
    "NO_ENCODER": "encoders.rows: ConfigError: rows: my_signals:Rows is no my_signals:NO_ENCODER",
    "NO_SOURCE": "sources.rows: Rows is no subclass of modalities.base.Source",
    "NO_WORLD": "envs.rows: Rows has no reset, step, render, close, as gymnasium.Env has",
    "BARE_WORLD": "envs.world: World takes no cameras, size",
    "INSTRUCTING": "envs.world: instruction takes 1 arguments, expected 2",
    "THING": "declaration: ConfigError: modality: my_signals:THING is no modality",
}


@pytest.fixture
def signals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_signals.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_signals", raising=False)
    monkeypatch.setattr(registry, "_NAMED", {})


@pytest.mark.usefixtures("signals")
def test_one_of_a_file_passes() -> None:
    check_modality("my_signals:GOOD")


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("name", BROKEN)
def test_a_violation_is_one_line(name: str) -> None:
    with pytest.raises(AssertionError) as error:
        check_modality(f"my_signals:{name}")
    line = str(error.value)
    assert line.startswith(f"my_signals:{name}, ") and BROKEN[name] in line, line
    assert "\n" not in line
