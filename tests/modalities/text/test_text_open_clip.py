"""open_clip's text towers: parity with the library, names, options."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import nn
from transformers import RobertaConfig, RobertaModel

from sensorium.modalities.text.open_clip import OpenClipText

Save = Callable[..., Any]
TEXTS = ["a red robot", "the small robot pushes a blue puck to the goal, slowly", "né <image> 猫"]
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 96,
}
TOWERS: dict[str, dict[str, Any]] = {
    "clip": {},
    "custom": {"custom_text": True, "quick_gelu": True},
    "siglip": {
        "custom_text": True,
        "init_logit_bias": -10.0,
        "text_cfg": {
            "vocab_size": 300,
            "hf_tokenizer_name": "given by the folder",
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    },
    "coca": {
        "text_cfg": {"embed_cls": True, "output_tokens": True},
        "vision_cfg": {"attentional_pool": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 16, "width": 32, "heads": 2, "layers": 1},
        "custom_text": True,
    },
    "square": {"text_cfg": {"proj_type": "none"}, "embed_dim": 32},
}


def build(part: Any, options: dict[str, Any], **fitted: Any) -> Any:
    """As the engine does it: resolve, then build."""
    return part(**part.resolve(options), **fitted).eval()


def encoded(encoder: Any, texts: list[str], **options: Any) -> Any:
    batch = encoder.collate([encoder.processor.prepare(text) for text in texts])
    return encoder(**batch, **options)


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("tower", TOWERS)
def test_open_clip_parity(
    tower: str, tmp_path: Path, save_tokenizer: Save, save_clip: Save
) -> None:
    save_tokenizer(tmp_path)
    name = save_clip(tmp_path, **TOWERS[tower])
    theirs = open_clip.create_model(name).eval()
    ours = build(OpenClipText, {"name": name})
    assert OpenClipText.has_pretrained_weights({"name": name})
    ours.load()
    texts = [TEXTS[0], TEXTS[1] * 2, "a"]
    ids = open_clip.get_tokenizer(name)(texts)
    with pytest.warns(UserWarning, match="longer than the context of 16 tokens"):
        batch = ours.collate([ours.processor.prepare(text) for text in texts])
    assert torch.equal(batch["ids"], ids)
    features = ours(**batch)
    known = theirs.encode_text(ids, normalize=True)
    torch.testing.assert_close(nn.functional.normalize(features.pooled), known, rtol=0, atol=1e-5)
    lengths = features.lengths.tolist()
    assert lengths[2] == 3 < lengths[0] < lengths[1] == 16
    if tower in ("clip", "custom"):  # the vector is the token at the end of the text
        torch.testing.assert_close(features.tokens[0, lengths[0] - 1], features.pooled[0])


def test_open_clip_on_a_hub_model(tmp_path: Path, save_tokenizer: Save, save_clip: Save) -> None:
    """RoBERTa in open_clip: its own configuration, its own tokenizer, its own pooling."""
    inner = tmp_path / "roberta"
    RobertaModel(RobertaConfig(vocab_size=300, pad_token_id=0, **SMALL)).save_pretrained(inner)
    save_tokenizer(tmp_path)
    text = {
        "hf_model_name": str(inner),
        "hf_tokenizer_name": "given by the folder",
        "hf_pooler_type": "mean_pooler",
        "context_length": 32,
    }
    name = save_clip(tmp_path, text_cfg=text)
    theirs, ours = open_clip.create_model(name).eval(), build(OpenClipText, {"name": name})
    ours.load()
    features = encoded(ours, TEXTS)
    known = theirs.encode_text(open_clip.get_tokenizer(name)(TEXTS), normalize=True)
    torch.testing.assert_close(nn.functional.normalize(features.pooled), known, rtol=0, atol=1e-5)
    with torch.device("meta"):
        meta = build(OpenClipText, {"name": name})
        ids = torch.zeros(2, 32, dtype=torch.long)
        assert meta(ids=ids, mask=ids == 0).pooled.shape == (2, 24)


def test_open_clip_by_name_with_options() -> None:
    """A built-in name, made small; no folder, no network."""
    sizes = {"embed_dim": 24, "text_cfg": {"width": 32, "heads": 2, "layers": 1}}
    ours = build(OpenClipText, {"name": "ViT-B-32", "options": sizes})
    assert ours.dim == 24 and len(ours.blocks()) == 1
    assert encoded(ours, ["a cat"]).tokens.shape == (1, 77, 24)
    assert not OpenClipText.has_pretrained_weights({"name": "ViT-B-32"})
    assert OpenClipText.has_pretrained_weights({"name": "ViT-B-32:laion2b_s34b_b79k"})
    with pytest.raises(ValueError, match=r"names no weights; known: .*ViT-B-32:laion2b_s34b_b79k"):
        ours.load()


def test_resolving_twice_changes_nothing(tmp_path: Path, save_clip: Save) -> None:
    once = OpenClipText.resolve({"name": save_clip(tmp_path)})
    assert OpenClipText.resolve(json.loads(json.dumps(once))) == once


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model 'ViT-B-33'; did you mean 'ViT-B-32'"):
        OpenClipText.resolve({"name": "ViT-B-33"})
    with pytest.raises(ValueError, match=r"ViT-B-32 has no weights 'laion'; known: .*laion2b"):
        OpenClipText.resolve({"name": "ViT-B-32:laion"})
    with pytest.raises(ValueError, match="name it ViT-B-32-quickgelu:openai"):
        OpenClipText.resolve({"name": "ViT-B-32:openai"})
    with pytest.raises(ValueError, match="no model at 'local-dir:"):
        OpenClipText.resolve({"name": f"local-dir:{tmp_path / 'nothing'}"})
    with pytest.raises(ValueError, match="resolve first"):
        OpenClipText(name="ViT-B-32")
