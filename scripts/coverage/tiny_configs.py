"""Tiny random configurations of every architecture of transformers, by general rules.

A rule is a pattern of attribute names and the value that such an attribute gets; what cannot be
derived from names is in `EXCEPTIONS`, by model type. Nothing here is used by the package.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

Fields = dict[str, Any]

VOCAB = 300
"""Rows of every table: a bit more than the byte tokenizer has ids."""

RULES: tuple[tuple[str, int], ...] = (
    (r"(^|_)(unpadded_|padded_|text_|decoder_|encoder_|src_|tgt_)*vocab_size$", VOCAB),
    (r"^(n|num)_labels$", 2),
    (r"(num_key_value_heads|num_kv_heads|n_head_kv|multi_query_group_num|num_query_groups)$", 2),
    (r"(num_hash_functions|num_hashes)$", 1),
    (r"(^|_)(num_)?(attention_)?heads$|(^|_)n_heads?$|^num_heads$", 4),
    (r"(^|_)(num_hidden_layers|num_layers|n_layers?|layers)$", 2),
    (r"^num_(decoder|encoder)_layers$", 2),
    (r"(head_dim|d_kv|head_size|dim_head|attention_head_size|attention_head_dim)$", 8),
    (r"^rotary_dim$", 4),
    (r"(lora_rank|_rank|time_step_rank|dt_rank)$", 8),
    (r"(num_local_experts|num_experts|n_routed_experts|moe_num_experts|num_routed_experts)$", 4),
    (r"(experts_per_tok|experts_per_token|num_selected_experts|moe_topk|moe_k|top_k_experts)$", 2),
    (r"^(n_group|topk_group|n_groups|mamba_n_groups|n_shared_experts|num_shared_experts)$", 1),
    (r"(intermediate_size|intermediate_dim|ffn_dim|d_ff|n_inner|ffn_hidden_size)$", 48),
    (r"(d_inner|ffn_size)$", 48),
    (
        r"(hidden_size|d_model|n_embd|embedding_size|embedding_dim|embed_dim|emb_dim|word_embed_proj_dim)$",
        32,
    ),
    (r"(max_position_embeddings|n_positions|n_ctx|max_seq_len|seq_length)$", 128),
    (r"max_sequence_length$", 128),
    (r"max_source_positions$", 200),  # a window of four seconds
    (r"(max_target_positions|context_length|max_length)$", 128),
    (r"(state_size|d_state|mamba_d_state|ssm_state_size)$", 8),
    (r"(chunk_size|mamba_chunk_size)$", 8),
    (r"^(hidden_dim|dim)$", 32),
    (r"^(image_size|crop_size)$", 64),
    (r"^(num_frames|frames_per_clip)$", 4),
)
"""The first pattern that matches a name decides."""

EXPERTS = {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1}
GEMMA = {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8}
PLAIN_GEMMA = {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0}
EFFICIENTNET = {
    "width_coefficient": 0.25, "depth_coefficient": 0.5, "image_size": 64, "hidden_dim": 320,
}  # fmt: skip

EXCEPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "align": {"fields": {"vision_config": EFFICIENTNET}},
    "audio-spectrogram-transformer": {"fields": {"max_length": 512}},
    "bamba": {"fields": {"attn_layer_indices": [1]}},
    "bridgetower": {
        "fields": {
            "hidden_size": 64, "num_attention_heads": 1, "text_config": {"hidden_size": 64},
            "vision_config": {"hidden_size": 64, "patch_size": 16, "image_size": 64},
        }
    },
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
    "xlstm": {
        "fields": {
            "hidden_size": 128, "embedding_dim": 128, "num_heads": 4, "num_blocks": 2,
            "num_hidden_layers": 2,
        }
    },
    "xmod": {"fields": {"languages": ["en_XX", "de_DE"], "default_language": "en_XX"}},
    "zamba": {
        "fields": {
            "layers_block_type": ["linear_attention", "hybrid"] * 2, "num_hidden_layers": 4,
            "attention_hidden_size": 64, "attention_head_dim": 16,
        }
    },
    "zamba2": {"fields": {"attention_hidden_size": 64, "attention_head_dim": 16}},
    "mamba2": {"fields": {"num_heads": 8, "head_dim": 8}},
    "gpt_neo": {"fields": {"attention_types": [[["global", "local"], 1]]}},
}  # fmt: skip
"""needs: arguments without which the class builds no configuration. fields: laid over the rules."""

IDS = re.compile(r"(^|_)(pad|bos|eos|sep|cls|mask|unk|start)_token_id$|_token_(id|index)$|_id$")


def shrink(fields: Mapping[str, Any], whole: bool, kinds: bool) -> Fields:
    """Return the fields that a tiny configuration has in place of a family's own.

    whole: sections keep their other fields. kinds: one layer of each kind, else two.
    """
    changed: Fields = {}
    for name, value in fields.items():
        if isinstance(value, Mapping) and (name.endswith("config") or "model_type" in value):
            unchanged = value if whole else {k: value[k] for k in ("model_type",) if k in value}
            changed[name] = {**unchanged, **shrink(value, whole, kinds)}
        elif isinstance(value, int) and not isinstance(value, bool):
            changed |= {name: small} if (small := small_value(name, value)) is not None else {}
    if fields.get("num_key_value_heads") == fields.get("num_attention_heads", -1):
        changed["num_key_value_heads"] = changed.get("num_attention_heads")
    for name in ("layer_types", "layers_block_type"):
        types = list(dict.fromkeys(fields.get(name) or ()))
        if kinds and types:
            types = types if len(types) > 1 else types * 2
            changed |= {name: types, "num_hidden_layers": len(types)}
    count = next((fields[k] for k in ("num_hidden_layers", "n_layer") if k in fields), None)
    if whole:
        changed |= per_layer(fields, count, changed.get("num_hidden_layers", 2), changed)
    return changed


def small_value(name: str, value: int) -> int | None:
    """Return the value of an attribute by the rules; None if they keep it."""
    for pattern, small in RULES:
        if re.search(pattern, name):
            return min(value, small) if value > 0 and "vocab" not in name else small
    if IDS.search(name) and value >= VOCAB:
        return 0 if name.startswith("pad") else 1
    if "window" in name and value > 0:
        return 64
    return None


def per_layer(
    fields: Mapping[str, Any], count: int | None, layers: int, changed: Collection[str]
) -> Fields:
    """Return lists and mappings with an entry for each of `count` layers, cut to `layers`."""
    cut: Fields = {}
    for name, value in fields.items():
        if name in changed:
            continue
        if isinstance(value, (list, tuple)) and len(value) == count:
            cut[name] = list(value)[:layers]
        elif isinstance(value, Mapping) and value and all(str(key).isdigit() for key in value):
            cut[name] = {key: inner for key, inner in value.items() if int(key) < layers}
    return cut


def tiny_config(config_class: Any) -> Any:
    """Return a tiny configuration of a class of transformers' configurations.

    Raises the error of the class if the rules and the exceptions do not fit it.
    """
    exceptions = EXCEPTIONS.get(config_class.model_type, {})
    plain = config_class(**exceptions.get("needs", {}))
    fields, errors = plain.to_dict(), []
    for whole in (True, False):
        for kinds in (True, False):
            changed = merged(shrink(fields, whole, kinds), exceptions.get("fields", {}))
            try:
                return config_class(**changed)
            except Exception as error:
                errors.append(error)
    raise errors[0]


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Fields:
    """Return `base` with `over` laid over it, section by section."""
    result = dict(base)
    for key, value in over.items():
        inner = result.get(key)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            value = merged(inner, value)
        result[key] = value
    return result
