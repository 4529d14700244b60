"""A recipe of the first edition is told in one line what each of its keys is called now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sensorium.engine.recipe import Recipe
from sensorium.engine.recipe.registry import find, registered
from sensorium.engine.recipe.validation import arguments
from sensorium.engine.recipe.validation.renamed import RENAMED, renamed
from sensorium.engine.utils import ConfigError
from sensorium.scripts import check

VALUES = [key for key in RENAMED if "=" in key]
KEYS = [key for key in RENAMED if "=" not in key]
PLACES = [key for key in KEYS if key.partition(".")[0] in Recipe.model_fields]
OPTIONS = [key for key in KEYS if key not in PLACES]

PATCHES = {"type": "patches", "size": 8, "patch_size": 4, "dim": 8}
IMAGE = {"modality": "image", "encoder": PATCHES}
KINDS = ("task", "connector", "head", "action_tokenizer", "text_tokenizer", "source")


def part(name: str) -> tuple[str, str, type]:
    """Kind, short name and class of the part that a key of the table names."""
    for kind in KINDS:
        for short, path in registered(kind).items():
            if path.rpartition(":")[2] == name:
                return kind, short, find(kind, short, "")
    raise AssertionError(f"the table has {name}, which no registry knows")


def recipe(kind: str, section: Any) -> tuple[dict[str, Any], str]:
    """A recipe with this section of a part, and the section's place."""
    if kind == "task":
        return {"inputs": {"image": IMAGE}, "tasks": {"a": section}}, "tasks.a"
    if kind == "action_tokenizer":
        task = {"type": "action_regression", "input": "image", "tokenizer": section}
        return {"inputs": {"image": IMAGE}, "tasks": {"a": task}}, "tasks.a.tokenizer"
    if kind == "text_tokenizer":
        task = {"type": "ctc", "input": "image", "tokenizer": section}
        return {"inputs": {"image": IMAGE}, "tasks": {"a": task}}, "tasks.a.tokenizer"
    if kind == "source":
        task = {"type": "dino", "input": "image", "size": 4, "local_size": 2}
        task["data"] = {"train": section}
        return {"inputs": {"image": IMAGE}, "tasks": {"a": task}}, "tasks.a.data.train"
    stream = {**IMAGE, "connector": section}
    return {"inputs": {"image": stream}, "tasks": {}}, "inputs.image.connector"


def nested(place: str, value: Any = 1) -> tuple[dict[str, Any], str]:
    """A recipe that has a value at a place, `*` replaced by a name."""
    if place.startswith("tasks.*.data.*."):
        option = place.rpartition(".")[2]
        values, section = recipe("source", {"source": "digits", option: 1})
        return values, f"{section}.{option}"
    keys = place.split(".")
    values: dict[str, Any] = {"inputs": {}, "tasks": {}}
    section = values
    for key in keys[:-1]:
        section = section.setdefault(key, {})
    section[keys[-1]] = value
    return values, ".".join(keys)


def refusal(values: dict[str, Any], folder: Path) -> list[str]:
    """The lines of `sensorium check`."""
    path = folder / "old.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        check.main(str(path))
    return str(refused.value).splitlines()


def lines_of(place: str, lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith(f"{place}: ")]


@pytest.mark.parametrize("old", PLACES)
def test_a_key_of_a_section(old: str, tmp_path: Path) -> None:
    values, place = nested(old)
    (line,) = lines_of(place, refusal(values, tmp_path))
    assert line.endswith(f"it is called {RENAMED[old]} now")


@pytest.mark.parametrize("old", OPTIONS)
def test_an_option_of_a_part(old: str, tmp_path: Path) -> None:
    name, _, option = old.partition(".")
    kind, short, _ = part(name)
    values, place = recipe(kind, {"source" if kind == "source" else "type": short, option: 1})
    (line,) = lines_of(f"{place}.{option}", refusal(values, tmp_path))
    assert line.endswith(f"it is called {RENAMED[old]} now")


@pytest.mark.parametrize("old", VALUES)
def test_a_value(old: str, tmp_path: Path) -> None:
    key, _, value = old.partition("=")
    if key.partition(".")[0] in Recipe.model_fields:
        values, place = nested(key, value)
    elif "." in key:
        name, _, option = key.partition(".")
        kind, short, _ = part(name)
        values, place = recipe(kind, {"type": short, option: value})
        place = f"{place}.{option}"
    else:
        values, place = recipe(key, {"type": value})
    (line,) = lines_of(place, refusal(values, tmp_path))
    assert f"it is called {RENAMED[old]} now" in line


@pytest.mark.parametrize("old", PLACES)
def test_the_new_key_exists_and_the_old_one_does_not(old: str) -> None:
    def known(place: str) -> bool:
        model: Any = Recipe
        for key in place.split("."):
            fields = {field.alias or name: field for name, field in model.model_fields.items()}
            if key not in fields:
                return model.model_config.get("extra") == "allow"
            annotation = fields[key].annotation
            args = [a for a in getattr(annotation, "__args__", ()) if hasattr(a, "model_fields")]
            model = args[0] if args else annotation
        return True

    if "*" not in old:
        assert not known(old)
        assert known(RENAMED[old])


@pytest.mark.parametrize("old", OPTIONS)
def test_the_new_option_exists_and_the_old_one_does_not(old: str) -> None:
    name, _, option = old.partition(".")
    known = arguments(part(name)[2])
    assert option not in known
    assert RENAMED[old] in known


def test_a_star_is_one_name_and_a_class_names_its_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RENAMED, "tasks.*.data.*.old", "new")
    monkeypatch.setitem(RENAMED, "Sized.width", "dim")
    monkeypatch.setitem(RENAMED, "Sized.kind=small", "tiny")
    assert renamed("tasks.a.data.train.old") == "new"
    assert renamed("tasks.a.data.old") is None
    assert renamed("inputs.image.encoder.width", "Sized") == "dim"
    assert renamed("inputs.image.encoder.width", "Other") is None
    assert renamed("inputs.image.encoder.kind", "Sized", "small") == "tiny"
    assert renamed("inputs.image.encoder.kind", "Sized", "large") is None
