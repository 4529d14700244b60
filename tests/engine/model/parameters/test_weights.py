"""Where weights come from: a run, one of its streams, a chain of runs, a file; never a pickle."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import Tensor

from sensorium.engine.checkpoint import load_model, save_run
from sensorium.engine.model import Model, build, compose, resolve_and_fit
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.recipe.component_path import validate_source
from sensorium.engine.utils import ConfigError

DATA = {"train": {"source": "digits", "split": "train", "limit": 40}}


def _recipe(encoder: Mapping[str, Any] | None = None, stream: str = "image") -> dict[str, Any]:
    patches = {"type": "patches", "size": 8, "patch_size": 4, "dim": 12}
    return {
        "inputs": {stream: {"modality": "image", "encoder": {**patches, **(encoder or {})}}},
        "tasks": {
            "digit": {
                "type": "classification",
                "input": stream,
                "data": {
                    "train": {**DATA["train"], "columns": {stream: "image"}}
                    if stream != "image"
                    else DATA["train"]
                },
            }
        },
    }


def _model(seed: int, **changes: Any) -> Model:
    recipe = parse_recipe(_recipe(**changes))
    return compose(resolve_and_fit(recipe), seed=seed)


def _encoder(model: Model, stream: str = "image") -> dict[str, Tensor]:
    return dict(model.stream(stream).encoder.state_dict())


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def first() -> Model:
    """A run, saved in `runs/first`, with weights that no seed of the tests gives."""
    model = _model(100)
    save_run(model, Path("runs/first"))
    return model


def test_a_stream_of_the_same_name(first: Model) -> None:
    assert not _equal(_encoder(_model(0)), _encoder(first))
    assert _equal(_encoder(_model(0, encoder={"weights": "runs/first"})), _encoder(first))


def test_a_stream_of_another_name(first: Model) -> None:
    there = {"weights": "runs/first:image"}
    assert _equal(_encoder(_model(0, encoder=there, stream="scan"), "scan"), _encoder(first))
    with pytest.raises(ConfigError) as error:
        _model(0, encoder={"weights": "runs/first"}, stream="scan")
    assert "runs/first has no inputs.scan" in str(error.value)
    assert "image" in str(error.value)


def test_a_file(first: Model) -> None:
    save_file(_encoder(first), "encoder.safetensors")
    result = _model(0, encoder={"weights": "encoder.safetensors"})
    assert _equal(_encoder(result), _encoder(first))


def test_a_chain_of_runs(first: Model) -> None:
    """Each holds what it needs, and the one before may be gone."""
    frozen = {"weights": "runs/first", "freeze": True}
    second = _model(1, encoder=frozen)
    save_run(second, Path("runs/second"))
    Path("runs/first").rename("runs/gone")
    third = _model(2, encoder={"weights": "runs/second", "freeze": True})
    save_run(third, Path("runs/third"))
    Path("runs/second").rename("runs/gone-too")
    assert _equal(_encoder(third), _encoder(first))
    fourth = _model(3, encoder={"weights": "runs/third"})
    assert _equal(_encoder(fourth), _encoder(first))


def test_a_chain_with_its_last_blocks_trained(first: Model) -> None:
    part = {"weights": "runs/first", "freeze": {"last": 1}}
    second = _model(1, encoder=part)
    with torch.no_grad():
        for parameter in second.stream("image").encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    save_run(second, Path("runs/second"))
    third = _model(2, encoder={"weights": "runs/second"})
    assert _equal(_encoder(third), _encoder(second))


def test_what_trained_whole_is_loaded_without_its_beginning(first: Model, tmp_path: Path) -> None:
    """A run that keeps all of a part does not need the run that the part began with."""
    save_run(_model(1, encoder={"weights": "runs/first"}), Path("runs/second"))
    Path("runs/first").rename("runs/gone")
    assert _equal(_encoder(load_model("runs/second")), _encoder(first))


@pytest.mark.parametrize("freeze", [True, {"last": 1}, False])
@pytest.mark.parametrize("source", ["runs/first", "runs/first:image", "encoder.safetensors"])
def test_what_a_run_began_with_may_go(
    first: Model, source: str, freeze: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run loads from any folder and in any other, without the run or file that it began with."""
    from safetensors.torch import save_file

    save_file(first.stream("image").encoder.state_dict(), "encoder.safetensors")
    model = _model(1, encoder={"weights": source, "freeze": freeze})
    save_run(model, Path("runs/second"))
    for path in ("runs/first", "encoder.safetensors"):
        Path(path).rename(f"{path}.gone")
    Path("elsewhere").mkdir()
    Path("runs/second").rename("elsewhere/moved")
    monkeypatch.chdir("elsewhere")
    assert _equal(_encoder(load_model("moved")), _encoder(model))


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
        _model(0, encoder={**encoder, "weights": "runs/first"})
    line = str(error.value)
    assert line.startswith("inputs.image.encoder: ")
    assert "\n" not in line
    for word in words:
        assert word in line


def test_tied_weights_come_back_under_both_names() -> None:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    options = {**small, "num_attention_heads": 2, "num_key_value_heads": 2}
    recipe = _recipe()
    recipe["inputs"]["image"]["connector"] = "linear"
    recipe["backbone"] = {
        "type": "causal",
        "name": "tiny-llama",
        "tokenizer": "bytes",
        "options": {**options, "tie_word_embeddings": True},
    }
    recipe["tasks"]["say"] = {"type": "captioning", "prompt": "<image>", "data": DATA}
    tied = compose(resolve_and_fit(parse_recipe(recipe)), seed=100)
    save_run(tied, Path("runs/tied"))
    recipe["backbone"]["weights"] = "runs/tied"
    again = compose(resolve_and_fit(parse_recipe(recipe)), seed=0)
    assert tied.backbone is not None
    assert again.backbone is not None
    assert _equal(again.backbone.state_dict(), tied.backbone.state_dict())


def test_a_file_with_too_little(first: Model) -> None:
    state = _encoder(first)
    left = sorted(state)[0]
    save_file({k: v for k, v in state.items() if k != left}, "part.safetensors")
    with pytest.raises(ConfigError, match=f"part.safetensors lacks {re.escape(left)}"):
        _model(0, encoder={"weights": "part.safetensors"})


def test_a_file_that_was_cut_short(first: Model) -> None:
    save_file(_encoder(first), "whole.safetensors")
    Path("cut.safetensors").write_bytes(Path("whole.safetensors").read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"cut\.safetensors is no whole") as error:
        _model(0, encoder={"weights": "cut.safetensors"})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cut", ["recipe.yaml", "model.safetensors"])
def test_a_run_that_is_not_whole(first: Model, cut: str) -> None:
    path = Path("runs/first") / cut
    path.unlink()
    with pytest.raises(ConfigError) as error:
        _model(0, encoder={"weights": "runs/first"})
    assert "inputs.image.encoder" in str(error.value) or str(path) in str(error.value)
    path.write_bytes(b"\x00\x01")
    with pytest.raises(ConfigError) as error:
        _model(0, encoder={"weights": "runs/first"})
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
        _model(0, encoder={"weights": "hf-hub:org/name@v1"})
    assert "hf-hub:org/name@v1" in str(error.value)
    assert "\n" not in str(error.value)


def test_no_weights_are_the_seeds(first: Model) -> None:
    """Without weights a part depends on the recipe's seed and its place alone."""
    assert _equal(_encoder(_model(5)), _encoder(_model(5)))
    assert not _equal(_encoder(_model(5)), _encoder(_model(6)))
    recipe = _recipe()
    recipe["train"] = {"seed": 5}
    assert _equal(_encoder(build(parse_recipe(recipe))), _encoder(_model(5)))


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
    own = re.compile(r"\.eval\(\)|``?eval\(\)``?|`eval\(\)`")
    result = [
        f"{path.relative_to(ROOT)}: {match.group().strip()}"
        for path in PACKAGE
        for match in forbidden.finditer(own.sub("", path.read_text(encoding="utf-8")))
    ]
    assert len(PACKAGE) > 50
    assert result == []


def test_a_head_of_a_run(first: Model) -> None:
    """Of the task of the same name, or of the one that is named, or by its whole name."""
    saved = first.task("digit").heads["head"].state_dict()
    sources = ("runs/first:digit", "runs/first:digit.head")
    for name, source in (("digit", "runs/first"), *(("number", source) for source in sources)):
        recipe = _recipe()
        task = {**recipe["tasks"]["digit"], "head": {"type": "linear", "weights": source}}
        recipe["tasks"] = {name: task}
        model = compose(resolve_and_fit(parse_recipe(recipe)), seed=0)
        assert _equal(model.task(name).heads["head"].state_dict(), saved)


def _vit(folder: Path) -> str:
    transformers.ViTModel(
        transformers.ViTConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            image_size=16,
            patch_size=8,
        )
    ).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    transformers.ViTImageProcessor(size=size).save_pretrained(folder)
    return str(folder)


def _timm(folder: Path) -> str:
    save_for_hf(timm.create_model("test_vit", num_classes=0), str(folder), safe_serialization=True)
    return f"local-dir:{folder}"


@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize(("kind", "make"), [("transformers", _vit), ("timm", _timm)])
def test_a_folder_of_weights_that_is_gone(
    tmp_path: Path,
    kind: str,
    make: Callable[[Path], str],
    freeze: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that trained all of them needs it no more; a frozen encoder's is named."""
    recipe = _recipe()
    name = make(Path("weights"))  # relative to the working folder, which is another one later
    encoder = {"type": kind, "name": name, "freeze": freeze}
    recipe["inputs"]["image"] = {"modality": "image", "encoder": encoder, "connector": "mean"}
    model = build(parse_recipe(recipe))
    save_run(model, tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert _equal(_encoder(load_model(tmp_path / "run")), _encoder(model))
    (tmp_path / "weights").rename(tmp_path / "moved")
    if freeze:
        with pytest.raises(ConfigError, match=r"encoder\.name: there is no folder .*bring it back"):
            load_model(tmp_path / "run")
        recipe_file = tmp_path / "run" / "recipe.yaml"
        text = recipe_file.read_text().replace("/weights", "/moved")
        recipe_file.write_text(text)
        assert _equal(_encoder(load_model(tmp_path / "run")), _encoder(model))
    else:
        assert _equal(_encoder(load_model(tmp_path / "run")), _encoder(model))
