"""Checkpoints of transformers at their smallest, and what a run of one is compared by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors
from torch import nn
from transformers import (
    PreTrainedTokenizerFast,
)

from sensorium.engine.checkpoint import load_model
from sensorium.engine.checkpoint.exchange import import_model

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{i}" for i in range(26)), "<image>"]
PAD, BOS, EOS, IMAGE = 0, 1, 2, len(WORDS) - 1
IDS = {"vocab_size": len(WORDS), "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
TEXT = {
    "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
VISION = {**TEXT, "hidden_size": 16, "num_hidden_layers": 3, "image_size": 16, "patch_size": 8}


def drawn(model: nn.Module) -> Any:
    """A model whose weights are so large that outputs differ."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "logit" not in name:
            nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 0.1)
    return model.eval()


def save_tokenizer(folder: Path, ends: bool = True) -> None:
    backend = Backend(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ends:
        pair = [("<bos>", BOS), ("<eos>", EOS)]
        backend.post_processor = processors.TemplateProcessing(
            single="<bos> $A <eos>", special_tokens=pair
        )
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(folder)


def pictures(count: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)) for _ in range(count)]


def loaded(kind: str, folder: Path, out: Path) -> Any:
    """The run of an imported folder, without the folder."""
    import_model(kind, folder, out)
    folder.rename(folder.with_name("gone"))
    model = load_model(out)
    folder.with_name("gone").rename(folder)
    return model


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    assert float(b.std()) > 1e-2
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


ROW = torch.tensor([[5, 6, 7], [8, 9, 10]])
