"""Names in recipes: every one in a catalogue is a class of its room; plug-ins add names."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from sensorium.engine.recipe import find, load, load_recipe, registered, registry, schema
from sensorium.engine.recipe.validation import arguments
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Source
from sensorium.modalities.messages import did_you_mean

MODALITIES = sorted(registered("modality"))
KINDS = [
    *(kind for kind, spec in registry.KINDS.items() if not spec.scoped and kind != "modality"),
    *(f"{name}_{kind}" for name in MODALITIES for kind in ("encoder", "decoder", "augment")),
    "action_tokenizer",
    "text_tokenizer",
]
NAMES = [(kind, name) for kind in KINDS for name in sorted(registered(kind))]


@pytest.mark.parametrize(("kind", "name"), NAMES, ids=[f"{k}-{n}" for k, n in NAMES])
def test_a_name_is_a_class_whose_options_a_recipe_can_give(kind: str, name: str) -> None:
    result = find(kind, name, "here")
    assert (inspect.getdoc(result) or "").strip()
    if kind in ("env", "optimizer", "schedule"):
        return  # another library's: see `validation/library_schema.py`
    arguments(result)  # raises where its constructor breaks the rules
    if kind == "source" and isinstance(result, type):
        assert issubclass(result, Source)


@pytest.mark.parametrize("name", MODALITIES)
def test_what_a_modality_makes_it_can_read_and_show(name: str) -> None:
    modality = find("modality", name, "here")
    raw = load(modality.example)(np.random.default_rng(0))
    assert load(modality.read)(raw) is not None
    assert isinstance(load(modality.preview)(load(modality.read)(raw)), str)


def test_parts_of_all_modalities_are_named_with_their_modality() -> None:
    assert find("encoder", "image/timm", "here") is find("image_encoder", "timm", "here")
    assert find("image_encoder", "text/causal_lm", "here") is find(
        "text_encoder", "causal_lm", "here"
    )
    assert set(registered("backbone")) <= set(registered("decoder"))


def test_the_kinds_are_listed_without_their_libraries() -> None:
    """Names are strings until one is asked for."""
    code = (
        "import sys; from sensorium.engine.recipe.registry import KINDS, registered; "
        "assert all(registered(kind) for kind in KINDS if kind != 'source'); "
        "print(sorted({'timm', 'open_clip', 'transformers', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """Entry points that stand for those of installed packages."""
    result: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: result)
    registry._plugins.cache_clear()
    monkeypatch.setattr(registry, "_NAMED", {})
    yield result
    registry._plugins.cache_clear()


def _point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "sensorium.plugins")


MLP = "sensorium.connectors.projectors:MLP"


def test_a_plugin_adds_a_name(plugins: list[EntryPoint]) -> None:
    plugins.append(_point("connector.qformer", MLP))
    plugins.append(
        _point("image_encoder.mine", "sensorium.modalities.image.encoders.patches:Patches")
    )
    assert find("connector", "qformer", "here") is load(MLP)
    assert "mine" in registered("image_encoder")
    assert "qformer" not in registered("head")


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([("connector.a", MLP), ("connector.a", "other:MLP")], ("two plug-ins", MLP, "other:MLP")),
        ([("connector.mlp", "other:MLP")], ("takes the name", "'mlp'", MLP, "other:MLP")),
        ([("qformer", MLP)], ("plug-in qformer", "<kind>.<name>", "connector.qformer")),
        ([("conector.a", MLP)], ("plug-in conector.a", "did you mean 'connector'")),
    ],
)
def test_plugins_that_clash_are_refused(
    plugins: list[EntryPoint], points: list[tuple[str, str]], words: tuple[str, ...]
) -> None:
    plugins += [_point(*point) for point in points]
    with pytest.raises(ConfigError) as error:
        find("connector", "mlp", "here")
    for word in words:
        assert word in str(error.value)


def test_the_same_plugin_twice_is_one(plugins: list[EntryPoint]) -> None:
    plugins += [_point("connector.a", MLP)] * 2
    assert find("connector", "a", "here") is load(MLP)


def test_a_modality_without_sources_breaks_no_recipe(
    plugins: list[EntryPoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed modality brings what it has; the names of the others stay."""
    (tmp_path / "bare_modality.py").write_text(
        "from sensorium.modalities.modality import Modality\n"
        'BARE = Modality(encoders={"mine": "bare_encoders:Mine"}, decoders={"flow": "bare:Flow"},\n'
        '                tokenizers={"codes": "bare:Codes"}, envs={"world": "bare:World"})\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    plugins.append(_point("modality.bare", "bare_modality:BARE"))
    assert find("source", "digits", "here") is load(
        "sensorium.modalities.image.datasets.digits:Digits"
    )
    assert "bare_modality" not in sys.modules  # what others have is found without it
    assert registered("bare_encoder") == {"mine": "bare_encoders:Mine"}
    assert registered("encoder")["bare/mine"] == "bare_encoders:Mine"
    assert registered("decoder")["bare/flow"] == "bare:Flow"
    assert registered("bare_tokenizer") == {"codes": "bare:Codes"}
    assert registered("env")["world"] == "bare:World"
    assert registered("bare_augment") == {}
    rules = schema()["$defs"]["StreamSection"]["allOf"]
    assert "bare" in {rule["if"]["properties"]["modality"]["const"] for rule in rules}


BROKEN = {
    "no module": ("gone_modality:X", "there is no module 'gone_modality'"),
    "no library": ("wants_a_library:X", "there is no module 'no_such_library'"),
    "no name in it": ("broken_modality:Y", "has no 'Y'; there are: X"),
    "an old import": ("stale_modality:X", "cannot import name 'gone'"),
    "another object": ("broken_modality:X", "expected an object of sensorium.modalities.modality"),
    "a module": ("broken_modality", "expected package.module:name"),
}


@pytest.mark.parametrize(("value", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_named_in_one_line(
    plugins: list[EntryPoint],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    words: str,
) -> None:
    (tmp_path / "broken_modality.py").write_text("X = 1\n")
    (tmp_path / "stale_modality.py").write_text("from sensorium import gone\n")
    (tmp_path / "wants_a_library.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins.append(_point("modality.broken", value))
    for kind, name in (("modality", "broken"), ("source", "nowhere")):
        with pytest.raises(ConfigError) as error:
            find(kind, name, "here")
        assert f"plug-in modality.broken ({value})" in str(error.value)
        assert words in str(error.value) and "\n" not in str(error.value)


PLUGIN_FILES = {
    "a syntax error": ("def (:\n", ("syntax", "line 1")),
    "a failing import": ("from os import nothing\n", ("cannot import name 'nothing'",)),
    "a library that is missing": ("import no_such_library\n", ("no module 'no_such_library'",)),
    "an error while it runs": ("raise RuntimeError('odd')\n", ("RuntimeError: odd",)),
    "a division": ("1 / 0\n", ("ZeroDivisionError",)),
    "an exit": ("import sys\nsys.exit('bye')\n", ("bye",)),
    "bytes that are no text": (b"x = '\xff'\n", ("unicode error",)),
    "a null byte": ("x = 1\0\n", ("null bytes",)),
    "no such name": ("Other = 1\n", ("has no 'Mine'",)),
    "no class": ("Mine = 1\n", ("is no connector",)),
}


@pytest.mark.parametrize("name", PLUGIN_FILES)
def test_a_file_that_fails_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, words = PLUGIN_FILES[name]
    module = "broken_" + re.sub(r"\W", "_", name)
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / f"{module}.py").write_bytes(data)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as error:
        find("connector", f"{module}:Mine", "here.type")
    line = str(error.value)
    assert line.startswith(f"here.type: {module}:Mine") and "\n" not in line
    for word in words:
        assert word in line
    assert error.value.__cause__ is not None or "Mine" in words[0] or "no connector" in words[0]


CONNECTOR = "from sensorium.connectors.base import Connector\nclass Mine(Connector): where = {!r}\n"


def test_modules_are_found_beside_the_recipe_then_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    for folder in ("one", "two", "current"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "beside_me.py").write_text(CONNECTOR.format(folder))
        (tmp_path / folder / "recipe.yaml").write_text("tasks: {}\n")
    (tmp_path / "current" / "only_here.py").write_text(CONNECTOR.format("current"))
    (tmp_path / "one" / "json.py").write_text("raise RuntimeError\n")
    monkeypatch.chdir(tmp_path / "current")
    for folder in ("one", "two", "one"):
        load_recipe(tmp_path / folder / "recipe.yaml")
        assert find("connector", "beside_me:Mine", "here").where == folder
    assert find("connector", "only_here:Mine", "here").where == "current"
    assert load("json:dumps")(1) == "1"  # what is installed comes first


def test_a_file_is_no_module(tmp_path: Path) -> None:
    for name in ("./sub/mine.py:E", "mine.py:E", "sub/mine:E"):
        with pytest.raises(ConfigError, match=r"expected a module, not a file: mine:E"):
            find("connector", name, "here")


@pytest.mark.parametrize("kind", ["modality", *KINDS])
def test_an_unknown_name_is_a_short_line(kind: str) -> None:
    with pytest.raises(ConfigError) as error:
        find(kind, "q" * 500, "inputs.image.encoder.type")
    assert len(str(error.value)) <= 300
    assert "sensorium list " in str(error.value)


def test_a_class_of_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from sensorium.connectors.base import Connector\nclass Mine(Connector): ...\n"
    (tmp_path / "my_connectors_here.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert find("connector", "my_connectors_here:Mine", "here").__name__ == "Mine"


def test_a_file_whose_library_is_missing_names_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wants_a_library.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"here: .*no module 'no_such_library'"):
        find("connector", "wants_a_library:Mine", "here")
    monkeypatch.setitem(registry.EXTRAS, "no_such_library", "birds")
    with pytest.raises(ConfigError, match=r"pip install 'sensorium\[birds\]'"):
        find("connector", "wants_a_library:Mine", "here")


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("mpl", ["mlp", "conv"], "; did you mean 'mlp'?"),
        ("zzz", ["mlp", "conv"], "; there are: conv, mlp"),
        ("zzz", [], "; there are none"),
        ("zzz", [f"a{i:02}" for i in range(14)], "and 2 more"),
    ],
)
def test_the_nearest_name_or_all_of_them(name: str, known: list[str], expected: str) -> None:
    assert expected in did_you_mean(name, known)
