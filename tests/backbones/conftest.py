"""Tiny random decoders of many families, and a tokenizer that knows words by their number."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from torch import nn

from sensorium.backbones.causal import Causal
from sensorium.backbones.seq2seq import Seq2Seq
from sensorium.modalities.base import Features, Tokenizer

SIZE = 40
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
OLD = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GEMMA = {**LLAMA, "layer_types": ["sliding_attention", "full_attention"]}
T5GEMMA = {
    **GEMMA,
    "vocab_size": SIZE,
    "sliding_window": 64,
    "query_pre_attn_scalar": 8,
    "dropout_rate": 0.0,
    "attn_logit_softcapping": None,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **LLAMA},
    "qwen3": {"model_type": "qwen3", **LLAMA},
    "mistral": {"model_type": "mistral", **LLAMA, "sliding_window": 64},
    "mistral-short": {"model_type": "mistral", **LLAMA, "sliding_window": 4},
    "gemma2": {"model_type": "gemma2", **GEMMA, "sliding_window": 64, "query_pre_attn_scalar": 8},
    "gemma3": {"model_type": "gemma3_text", **GEMMA, "sliding_window": 64},
    "gemma3-short": {"model_type": "gemma3_text", **GEMMA, "sliding_window": 4},
    "cohere": {"model_type": "cohere", **LLAMA},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "opt": {"model_type": "opt", **OLD, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi": {"model_type": "phi", **OLD, "intermediate_size": 48},
    "gpt_neox": {"model_type": "gpt_neox", **OLD, "intermediate_size": 48},
    "mixtral": {"model_type": "mixtral", **LLAMA, "num_local_experts": 4},
    "gpt_bigcode": {"model_type": "gpt_bigcode", "n_embd": 32, "n_layer": 2, "n_head": 4},
    "modernbert-decoder": {
        "model_type": "modernbert-decoder",
        **OLD,
        "intermediate_size": 48,
        "local_attention": 128,
        **{f"{name}_token_id": i for i, name in enumerate(("pad", "eos", "bos"))},
    },
    "bloom": {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mamba2": {
        "model_type": "mamba2",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_heads": 8,
        "head_dim": 8,
        "state_size": 8,
        "n_groups": 1,
        "chunk_size": 8,
    },
    "t5": {
        "model_type": "t5",
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "dropout_rate": 0.0,
    },
    "bart": {
        "model_type": "bart",
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "max_position_embeddings": 64,
        "scale_embedding": True,
        "dropout": 0.0,
    },
    "t5gemma": {
        "model_type": "t5gemma",
        "encoder": T5GEMMA,
        "decoder": {**T5GEMMA, "cross_attention_hidden_size": 32},
        "vocab_size": SIZE,
        "dropout_rate": 0.0,
    },
}
PAIRS = ("t5", "bart", "t5gemma")


class Numbers(Tokenizer):
    """`"5 7"` <-> `[5, 7]`."""

    size, pad_id, eos_id, bos_id = SIZE, 0, 1, 2

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        ids = [int(word) for word in text.split()]
        return [self.bos_id, *ids, self.eos_id] if special else ids

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(str(i) for i in ids if i > self.bos_id)

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        pass


@pytest.fixture
def tokenizer() -> Numbers:
    return Numbers()


@pytest.fixture
def configs() -> dict[str, dict[str, Any]]:
    return CONFIGS


@pytest.fixture
def build() -> Callable[..., Any]:
    """`build("llama", attn="eager")`: a random decoder in `eval()`, far from linear."""

    def make(kind: str, **options: Any) -> Causal | Seq2Seq:
        key = f"{kind} {sorted(options.items())}"
        if key not in _prototypes or " at 0x" in key:  # an address tells no two objects apart
            torch.manual_seed(0)
            model = _initialized(kind, **options)
            _prototypes[key] = (model, torch.get_rng_state())
        model, state = _prototypes[key]
        torch.set_rng_state(state)
        return copy.deepcopy(model)

    return make


_prototypes: dict[str, tuple[Causal | Seq2Seq, torch.Tensor]] = {}
"""The decoders built so far, and the state of the generator after each: a copy costs a tenth."""


def _initialized(kind: str, **options: Any) -> Causal | Seq2Seq:
    family = Seq2Seq if kind in PAIRS else Causal
    model = family(tokenizer=Numbers(), config=CONFIGS[kind], **options).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "conv" not in name:
            nn.init.normal_(parameter, std=0.3)
    if kind in PAIRS:  # large tied tables would have every token follow itself
        for table in (model.table, model.decoder.get_input_embeddings()):
            nn.init.normal_(table.weight, std=0.03)
    return model


@pytest.fixture
def padded() -> Callable[..., Features]:
    """`padded([3, 5], 32)`: random rows of these lengths, padded with noise on the right."""

    def make(lengths: Sequence[int], dim: int, longest: int | None = None) -> Features:
        longest = max(lengths) if longest is None else longest
        mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
        return Features(torch.randn(len(lengths), longest, dim), mask)

    return make
