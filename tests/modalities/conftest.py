"""Small text models, saved in their libraries' own formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from sensorium.modalities.text.tokenizers import BPE

CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="session")
def bpe() -> BPE:
    built = BPE(size=300)
    built.fit(["a red robot", "the small robot pushes a blue puck to the goal, slowly", "猫"])
    return built


@pytest.fixture
def save_tokenizer(bpe: BPE) -> Callable[[Path], None]:
    """Writes `bpe` as a checkpoint's own tokenizer into a folder."""

    def save(folder: Path) -> None:
        PreTrainedTokenizerFast(
            tokenizer_object=bpe.backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
        ).save_pretrained(folder)

    return save


@pytest.fixture
def save_clip() -> Callable[..., str]:
    """Writes a random open_clip model into a folder; gives its `local-dir:` name. Keywords
    change its configuration; those of a section leave the rest of it."""

    def save(folder: Path, **changes: Any) -> str:
        whole = {k: {**CLIP.get(k, {}), **v} for k, v in changes.items() if isinstance(v, dict)}
        folder.mkdir(exist_ok=True)
        config = json.dumps({"model_cfg": {**CLIP, **changes, **whole}})
        (folder / "open_clip_config.json").write_text(config)
        torch.manual_seed(2)
        model = open_clip.create_model(f"local-dir:{folder}")
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        return f"local-dir:{folder}"

    return save
