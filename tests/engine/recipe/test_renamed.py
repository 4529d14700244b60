"""A recipe of the first edition is told in one line what each of its keys is called now."""

from __future__ import annotations

from typing import Any

import pytest

from sensorium.engine.recipe import Recipe, parse_recipe
from sensorium.engine.recipe.validation.renamed import RENAMED, renamed
from sensorium.engine.utils import ConfigError

FIRST_EDITION: dict[str, Any] = {
    "accumulate": 2,
    "betas": [0.9, 0.98],
    "by": "seconds",
    "clip": None,
    "lr": 1e-3,
    "mix": {"a": 2.0},
    "order": "within",
    "validate": {"every": 3, "best": "digit/accuracy"},
    "warmup": 0.1,
    "weight_decay": 0.1,
    "workers": 2,
}


def test_each_key_of_the_first_edition_has_its_line() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_recipe({"inputs": {}, "tasks": {}, "train": FIRST_EDITION})
    lines = str(refused.value).splitlines()
    keys = {"validate.best" if k == "validate" else k for k in FIRST_EDITION}
    assert {line.partition(": ")[0] for line in lines} == {f"train.{key}" for key in keys}
    for line in lines:
        place = line.partition(":")[0]
        assert line.endswith(f"it is called {RENAMED[place]} now"), line


@pytest.mark.parametrize("old", [k for k in RENAMED if k.startswith("train.")])
def test_the_new_names_of_train_exist_and_the_old_ones_do_not(old: str) -> None:
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

    assert not known(old)
    assert known(RENAMED[old])


def test_a_star_is_one_name_and_a_class_names_its_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RENAMED, "tasks.*.data.*.old", "new")
    monkeypatch.setitem(RENAMED, "Part.width", "dim")
    assert renamed("tasks.a.data.train.old") == "new"
    assert renamed("tasks.a.data.old") is None
    assert renamed("inputs.image.encoder.width", "Part") == "dim"
    assert renamed("inputs.image.encoder.width", "Other") is None
