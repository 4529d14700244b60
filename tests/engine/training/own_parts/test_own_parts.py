"""A mistake in an encoder of one's own is one line that names the encoder and the cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check, train
from sensorium.engine.utils import ConfigError


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))


def _recipe(name: str, **options: Any) -> Any:
    encoder = {"type": f"own_parts:{name}", **options}
    data = {"train": {"source": "digits", "split": "train", "limit": 4}}
    return parse_recipe(
        {
            "inputs": {"image": {"modality": "image", "encoder": encoder, "connector": "mean"}},
            "tasks": {
                "digit": {
                    "type": "classification",
                    "input": "image",
                    "target": "word",
                    "data": data,
                }
            },
            "train": {"steps": 1, "batch_size": 2},
        }
    )


MISTAKES = {
    "ReturnsTensor": ("ReturnsTensor.forward returned Tensor", "Features.dense(tokens)"),
    "ReturnsTuple": ("ReturnsTuple.forward returned tuple", "Features.dense(tokens)"),
    "WrongDim": ("WrongDim.dim is 17", "width 16"),
    "NoDim": ("NoDim.dim is None", "set self.dim"),
    "TextDim": ("TextDim.dim is '16'", "set self.dim"),
    "NoProcessor": ("NoProcessor.processor is None", "set self.processor"),
    "OtherProcessor": ("OtherProcessor.processor is Identity()", "expected a Processor"),
    "NoSuper": ("inputs.image.encoder", "before Module.__init__() call"),
    "WrongInput": ("unexpected keyword argument 'pixels'",),
    "Raises": ("KeyError: 'layer'",),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_an_encoder_is_one_line(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(_recipe(name))
    line = str(error.value)
    assert line.startswith(("inputs.image.encoder", "tasks.digit")) and "\n" not in line
    for words in MISTAKES[name]:
        assert words in line


@pytest.mark.parametrize("setting", ["", "compose", "enum", "function", "dtype"])
def test_a_processor_may_hold_what_libraries_prepare_with(setting: str, tmp_path: Path) -> None:
    recipe = _recipe("Right", freeze=True, setting=setting)
    assert "frozen, features cached" in str(check(recipe))
    train(recipe, tmp_path / "run", show=False)


@pytest.mark.parametrize("setting", ["lambda", "object"])
def test_what_tells_nothing_of_itself_asks_for_settings(setting: str, tmp_path: Path) -> None:
    recipe = _recipe("Right", freeze=True, setting=setting)
    for call in (check, lambda r: train(r, tmp_path / "run", show=False)):
        with pytest.raises(ConfigError, match=r"^inputs.image.*processor: Plain: .*settings\(\)"):
            call(recipe)
    check(_recipe("Right", setting=setting))  # nothing is cached while the encoder trains


def test_another_setting_of_a_transform_is_another_key() -> None:
    from own_parts import Composed  # type: ignore[import-not-found]

    from sensorium.engine.cache import processor_identity

    assert processor_identity(Composed(4)) == processor_identity(Composed(4))
    assert processor_identity(Composed(4)) != processor_identity(Composed(5))
