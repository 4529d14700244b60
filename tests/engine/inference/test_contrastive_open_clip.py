"""open_clip in both towers, through a recipe: its own embeddings, and its own zero-shot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sensorium.engine.inference import Pipeline
from sensorium.engine.model import build
from sensorium.engine.recipe import parse_recipe

CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
TEXTS = ["a red robot", "the small robot pushes a blue puck to the goal", "né 猫", "x"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model in open_clip's own format."""
    folder: Path = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP}))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}")
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def recipe(name: str) -> dict[str, Any]:
    image = {"type": "open_clip", "name": name, "output": "embedding", "freeze": True}
    text = {"type": "open_clip", "name": name, "freeze": True}
    return {
        "inputs": {
            "image": {"modality": "image", "encoder": image},
            "caption": {"modality": "text", "encoder": text},
        },
        "tasks": {
            "match": {"type": "contrastive", "streams": ["image", "caption"], "dim": 24},
        },
    }


def test_embeddings_are_those_of_open_clip(checkpoint: str) -> None:
    ours = Pipeline(build(parse_recipe(recipe(checkpoint))))
    theirs, _, preprocess = open_clip.create_model_and_transforms(checkpoint)
    theirs.eval()
    rng = np.random.default_rng(0)
    pictures = [
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
        for shape in ((32, 32), (50, 70), (200, 64))
    ]
    with torch.no_grad():
        known = theirs.encode_image(torch.stack([preprocess(p) for p in pictures]), normalize=True)
        ids = open_clip.get_tokenizer(checkpoint)(TEXTS)
        texts = theirs.encode_text(ids, normalize=True)
    torch.testing.assert_close(ours.embed(image=pictures), known, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.embed(caption=TEXTS), texts, rtol=0, atol=1e-5)


def test_predictions_are_the_same_vectors(checkpoint: str) -> None:
    ours = Pipeline(build(parse_recipe(recipe(checkpoint))))
    picture = Image.fromarray(np.full((40, 40, 3), 90, np.uint8))
    result = ours.generate("match", image=[picture] * 2, caption=TEXTS[:2])
    predicted = torch.tensor([row["caption"] for row in result])
    torch.testing.assert_close(predicted, ours.embed(caption=TEXTS[:2]), rtol=0, atol=1e-6)
    assert result[0]["image"] == pytest.approx(result[1]["image"], abs=1e-6)
