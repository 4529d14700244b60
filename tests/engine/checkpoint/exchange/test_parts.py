"""Components of a run as files of other libraries: equal outputs, or one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from sensorium.engine.checkpoint.exchange.common import tokenizer_of
from sensorium.engine.checkpoint.exchange.parts import export_part
from sensorium.engine.model import Model, build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.inference.test_python_api import RECIPE

LLAMA = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}


def composed(**changes: Any) -> Model:
    recipe: dict[str, Any] = {
        "inputs": {
            "image": {
                "modality": "image",
                "encoder": {
                    "type": "timm", "name": "vit_tiny_patch16_224", "weights": "none",
                    "options": {"img_size": 32, "depth": 1, "embed_dim": 12, "num_heads": 2},
                },
                "connector": {"type": "mlp", "hidden": 8},
            }
        },
        "backbone": {
            "type": "causal", "name": "tiny-llama", "tokenizer": "bytes", "options": LLAMA,
        },
        "tasks": {
            "describe": {"type": "captioning", "prompt": "<image>", "target": "{word}"},
        },
    }  # fmt: skip
    for key, value in changes.items():
        recipe[key] = {**recipe[key], **value}
    return build(parse_recipe(recipe)).eval()


@pytest.fixture(scope="module")
def model() -> Model:
    return composed()


@pytest.mark.parametrize("part", ["encoder", "connector", "backbone", "inputs.image.encoder"])
def test_safetensors_hold_the_weights(model: Model, part: str, tmp_path: Path) -> None:
    exported = export_part(model, part, "safetensors", tmp_path / "part.safetensors")
    state = load_file(tmp_path / "part.safetensors")
    module = next(c.module for c in model.components if str(c.where) == exported.component)
    assert state and all(torch.equal(module.state_dict()[name], v) for name, v in state.items())


@pytest.mark.slow
@pytest.mark.parametrize("part", ["encoder", "connector", "backbone"])
def test_onnx_computes_the_same_for_any_batch(model: Model, part: str, tmp_path: Path) -> None:
    exported = export_part(model, part, "onnx", tmp_path / "part.onnx")
    assert 0 < exported.difference < 1e-4
    assert (tmp_path / "part.onnx").stat().st_size > 100


def lively(backbone: Any) -> None:
    """Give adapters that begin at zero something to add."""
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(0))


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("added", [0, 3])
@pytest.mark.parametrize("lora", [False, True])
def test_a_backbone_opens_in_transformers(
    tied: bool, added: int, lora: bool, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"options": {**LLAMA, "tie_word_embeddings": tied}}
    if lora:
        changes["lora"] = {"r": 2}
    model = composed(backbone=changes)
    backbone: Any = model.backbone
    lively(backbone)
    if added:
        backbone.add_tokens(added)
    export_part(model, "backbone", "hf", tmp_path / "decoder")
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "decoder").eval()
    count = backbone.table.num_embeddings + added
    assert opened.get_input_embeddings().num_embeddings == count
    ids = torch.tensor([[1, 2, count - 1, 5]])
    with torch.no_grad():
        ours = backbone.logits(backbone(backbone.embed(ids)))
        theirs = opened(input_ids=ids).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_an_encoder_and_its_tokenizer_open_in_transformers(tmp_path: Path) -> None:
    from sensorium.tests.engine.checkpoint.exchange.exchange_cases import save_tokenizer

    save_tokenizer(tmp_path / "tokenizer")
    config = {**LLAMA, "model_type": "llama", "num_attention_heads": 2, "num_key_value_heads": 2}
    recipe = {
        "inputs": {
            "query": {
                "modality": "text",
                "encoder": {
                    "type": "causal_lm",
                    "config": config,
                    "tokenizer": tokenizer_of(tmp_path / "tokenizer"),
                },
                "connector": "mean",
            },
            "passage": {"share": "query"},
        },
        "tasks": {"match": {"type": "contrastive", "streams": ["query", "passage"], "dim": 16}},
    }  # fmt: skip
    model = build(parse_recipe(recipe)).eval()
    export_part(model, "encoder", "hf", tmp_path / "encoder")
    opened = AutoModel.from_pretrained(tmp_path / "encoder").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "encoder")
    encoder: Any = model.stream("query").encoder
    ids = torch.tensor([tokenizer("w1 w2 w3")["input_ids"]])
    with torch.no_grad():
        ours = encoder(ids, torch.ones_like(ids, dtype=torch.bool)).tokens
        theirs = opened(input_ids=ids).last_hidden_state
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("part", "kind", "words"),
    [
        ("encoder", "onxx", "--format: there is no 'onxx'; did you mean 'onnx'"),
        ("encoders", "onnx", "--part: there is no 'encoders'"),
        ("head", "onnx", "--part head: found none, expected one"),
        ("encoder", "hf", "inputs.image.encoder: Timm holds no model of transformers"),
        ("connector", "hf", "holds no model of transformers; take --format safetensors or onnx"),
    ],
)
def test_what_does_not_fit_is_one_line(
    model: Model, part: str, kind: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        export_part(model, part, kind, tmp_path / "x")
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_kept(model: Model, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        export_part(model, "backbone", "hf", tmp_path)
    assert (tmp_path / "a.txt").read_text() == "mine"


def test_several_of_a_kind_are_named_by_place() -> None:
    parts = {k: v for k, v in RECIPE.items() if k != "backbone"}
    model = build(parse_recipe({**parts, "tasks": {"match": RECIPE["tasks"]["match"]}})).eval()
    with pytest.raises(ConfigError, match=r"found inputs.image.encoder, inputs.caption.encoder"):
        export_part(model, "encoder", "safetensors", Path("x"))
