"""What the rules of `tiny_configs` cannot derive: fields of single model types."""

from __future__ import annotations

from typing import Any

EXPERTS = {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1}
GEMMA = {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8}
PLAIN_GEMMA = {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0}

EXCEPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "bamba": {"fields": {"attn_layer_indices": [1]}},
    "dbrx": {"fields": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2}}},
    "dots1": {"fields": {**EXPERTS, "num_experts_per_tok": 2, "first_k_dense_replace": 1}},
    "gemma3n_text": {"fields": GEMMA},
    "gemma3n": {"fields": {"text_config": GEMMA}},
    "gemma4_text": {"fields": GEMMA},
    "gemma4": {"fields": {"text_config": PLAIN_GEMMA}},
    "gemma4_unified_text": {"fields": PLAIN_GEMMA},
    "gemma4_unified": {"fields": {"text_config": PLAIN_GEMMA}},
    "jamba": {"fields": {"attn_layer_period": 2, "attn_layer_offset": 1}},
    "mamba2": {"fields": {"num_heads": 8, "head_dim": 8}},
    "gpt_neo": {"fields": {"attention_types": [[["global", "local"], 1]]}},
}
"""needs: arguments without which the class builds no configuration. fields: laid over the rules."""
