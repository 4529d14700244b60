"""Weights that are refused: other shapes, incomplete files, unknown forms of `weights`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from sensorium.engine.model import Model
from sensorium.engine.recipe.component_path import validate_source
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.model.parameters.weight_cases import encoder_of, model_of


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ({"dim": 8}, ("runs/first", "(12", "(8", "options that it was saved with")),
        ({"stem": [6]}, ("runs/first", "options that it was saved with")),
    ],
)
def test_another_shape_is_named_with_both_numbers(
    first: Model, encoder: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as error:
        model_of(0, encoder={**encoder, "weights": "runs/first"})
    line = str(error.value)
    assert line.startswith("inputs.image.encoder: ")
    assert "\n" not in line
    for word in words:
        assert word in line


def test_a_file_with_too_little(first: Model) -> None:
    state = encoder_of(first)
    left = sorted(state)[0]
    save_file({k: v for k, v in state.items() if k != left}, "part.safetensors")
    with pytest.raises(ConfigError, match=f"part.safetensors lacks {re.escape(left)}"):
        model_of(0, encoder={"weights": "part.safetensors"})


def test_a_file_that_was_cut_short(first: Model) -> None:
    save_file(encoder_of(first), "whole.safetensors")
    Path("cut.safetensors").write_bytes(Path("whole.safetensors").read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"cut\.safetensors is no whole") as error:
        model_of(0, encoder={"weights": "cut.safetensors"})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cut", ["recipe.yaml", "model.safetensors"])
def test_a_run_that_is_not_whole(first: Model, cut: str) -> None:
    path = Path("runs/first") / cut
    path.unlink()
    with pytest.raises(ConfigError) as error:
        model_of(0, encoder={"weights": "runs/first"})
    assert "inputs.image.encoder" in str(error.value) or str(path) in str(error.value)
    path.write_bytes(b"\x00\x01")
    with pytest.raises(ConfigError) as error:
        model_of(0, encoder={"weights": "runs/first"})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("org/name", ("hf-hub:org/name", "./org/name")),
        ("a/b/c", ("'a/b/c'", "pretrained, none")),
        ("weights.pt", ("'weights.pt'", ".safetensors")),
        ("empty", ("holds no model.safetensors", "run")),
    ],
)
def test_forms_that_are_refused(weights: str, words: tuple[str, ...]) -> None:
    Path("empty").mkdir()
    Path("weights.pt").write_bytes(b"")
    with pytest.raises(ConfigError) as error:
        validate_source(weights, "here")
    assert str(error.value).startswith("here: ")
    for word in words:
        assert word in str(error.value)


def test_a_hub_id_without_a_network_is_one_line() -> None:
    with pytest.raises(ConfigError) as error:
        model_of(0, encoder={"weights": "hf-hub:org/name@v1"})
    assert "hf-hub:org/name@v1" in str(error.value)
    assert "\n" not in str(error.value)


ROOT = Path(__file__).parents[4]
PACKAGE = [
    path
    for room in ("", "backbones", "connectors", "engine", "modalities", "scripts", "tasks")
    for path in (ROOT.glob("*.py") if not room else (ROOT / room).rglob("*.py"))
]


def test_nothing_is_ever_unpickled() -> None:
    """Neither torch.load, nor pickle and its like, nor code from the hub."""
    forbidden = re.compile(
        r"torch\.load\b|^\s*(?:import|from)\s+(?:pickle|dill|joblib|cloudpickle|shelve)\b"
        r"|allow_pickle\s*=\s*True|trust_remote_code|yaml\.(?:unsafe_|full_)?load\("
        r"|\beval\(|\bexec\(",
        re.MULTILINE,
    )
    harmless = re.compile(r"\.eval\(\)|``?eval\(\)``?|`eval\(\)`")
    result = [
        f"{path.relative_to(ROOT)}: {match.group().strip()}"
        for path in PACKAGE
        for match in forbidden.finditer(harmless.sub("", path.read_text(encoding="utf-8")))
    ]
    assert len(PACKAGE) > 50
    assert result == []
