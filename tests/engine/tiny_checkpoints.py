"""Tiny random checkpoints of transformers, by model type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
)

VOCABULARY = 24
_COMMON = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT = {
    "n_embd": 16,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": 64,
    "vocab_size": VOCABULARY,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_BERT = {k: v for k, v in _COMMON.items() if k not in ("num_key_value_heads", "head_dim")}
_BART = {
    "d_model": 16,
    "encoder_layers": 4,
    "decoder_layers": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 64,
    "vocab_size": VOCABULARY,
}
_T5 = {
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 24,
    "num_layers": 4,
    "num_decoder_layers": 4,
    "num_heads": 4,
    "vocab_size": VOCABULARY,
}

CAUSAL: dict[str, dict[str, Any]] = {
    "llama": {**_COMMON, "tie_word_embeddings": False},
    "qwen2": _BERT | {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3": _COMMON,
    "gemma": _COMMON,
    "gemma2": _COMMON | {"query_pre_attn_scalar": 4, "sliding_window": 16},
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "opt": {**_BERT, "ffn_dim": 24, "word_embed_proj_dim": 16},
    "phi": _BERT | {"partial_rotary_factor": 1.0},
    "phi3": _BERT | {"num_key_value_heads": 2},
    "gpt_neox": _BERT | {"rotary_pct": 1.0},
}
SEQ2SEQ: dict[str, dict[str, Any]] = {"bart": _BART, "t5": _T5}
MASKED: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "modernbert": _BERT | {"cls_token_id": 1, "sep_token_id": 2},
}
AUTO = {
    **dict.fromkeys(CAUSAL, AutoModelForCausalLM),
    **dict.fromkeys(SEQ2SEQ, AutoModelForSeq2SeqLM),
    **dict.fromkeys(MASKED, AutoModelForMaskedLM),
}
CONFIGS = CAUSAL | SEQ2SEQ | MASKED


def tiny(kind: str, seed: int = 0, **changes: Any) -> Any:
    """Return a random model with weights large enough that every layer shows in its outputs."""
    config = CONFIG_MAPPING[kind](**{**CONFIGS[kind], **changes})
    torch.manual_seed(seed)
    model = AUTO[kind].from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def saved(kind: str, folder: Path, seed: int = 0, **changes: Any) -> Path:
    tiny(kind, seed, **changes).save_pretrained(folder)
    return folder


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor | None = None) -> torch.Tensor:
    if ids is None:
        ids = torch.tensor([[5, 9, 3, 17, 4, 8], [3, 3, 21, 7, 9, 6]])
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids.flip(1)
    output: torch.Tensor = model(**inputs).logits
    return output
