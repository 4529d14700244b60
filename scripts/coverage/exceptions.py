"""What the rules of `tiny_configs` cannot derive: fields of single model types."""

from __future__ import annotations

from typing import Any

EXPERTS = {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1}
GEMMA = {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8}
PLAIN_GEMMA = {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0}
EFFICIENTNET = {
    "width_coefficient": 0.25, "depth_coefficient": 0.5, "image_size": 64, "hidden_dim": 320,
}  # fmt: skip

EXCEPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "align": {"fields": {"vision_config": EFFICIENTNET}},
    "bamba": {"fields": {"attn_layer_indices": [1]}},
    "dbrx": {"fields": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0}}},
    "deepseek_v2": {
        "fields": {
            **EXPERTS, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
        }
    },
    "dots1": {"fields": {**EXPERTS, "num_experts_per_tok": 2, "first_k_dense_replace": 1}},
    "efficientnet": {"fields": EFFICIENTNET},
    "gemma3n_text": {"fields": GEMMA},
    "gemma3n": {"fields": {"text_config": GEMMA}},
    "gemma4_text": {"fields": GEMMA},
    "gemma4": {"fields": {"text_config": PLAIN_GEMMA}},
    "gemma4_unified_text": {"fields": PLAIN_GEMMA},
    "gemma4_unified": {"fields": {"text_config": PLAIN_GEMMA}},
    "granitemoehybrid": {
        "fields": {"layer_types": ["mamba", "attention"], "position_embedding_type": "rope"}
    },
    "hunyuan_v1_dense": {"fields": {"head_dim": 8}},
    "hunyuan_v1_moe": {"fields": {"head_dim": 8, "moe_topk": 2, "num_experts": 4}},
    "jamba": {"fields": {"attn_layer_period": 2, "attn_layer_offset": 1}},
    "lfm2_moe": {"fields": {"layer_types": ["conv", "full_attention"]}},
    "longcat_flash": {
        "fields": {
            "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "head_dim": 8,
            "qk_head_dim": 16, "kv_lora_rank": 8, "q_lora_rank": 8, "zero_expert_num": 2,
            "n_routed_experts": 4, "moe_topk": 2,
        }
    },
    "ministral": {"fields": {"head_dim": 8}},
    "nemotron": {"fields": {"num_key_value_heads": 2, "head_dim": 8}},
    "recurrent_gemma": {
        "fields": {
            "block_types": ["recurrent", "attention"], "lru_width": 32, "head_dim": 8,
            "num_key_value_heads": 4,
        }
    },
    "reformer": {
        "fields": {
            "attn_layers": ["local", "lsh"], "axial_pos_shape": [8, 16],
            "axial_pos_embds_dim": [16, 16], "local_attn_chunk_length": 4,
            "lsh_attn_chunk_length": 4, "num_buckets": 4,
        }
    },
    "xmod": {"fields": {"languages": ["en_XX", "de_DE"], "default_language": "en_XX"}},
    "zamba2": {"fields": {"attention_hidden_size": 64, "attention_head_dim": 16}},
    "mamba2": {"fields": {"num_heads": 8, "head_dim": 8}},
    "gpt_neo": {"fields": {"attention_types": [[["global", "local"], 1]]}},
}  # fmt: skip
"""needs: arguments without which the class builds no configuration. fields: laid over the rules."""
