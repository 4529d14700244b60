"""Transformers configurations and weights of the decoder that a recipe names.

A decoder is named by a local folder (or its `config.json`), a hub id, or a small built-in
configuration; or the recipe holds its configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from ..modalities.base import Tokenizer
from ..modalities.messages import did_you_mean
from .stack import register_pair

Fields = dict[str, Any]

CAUSAL: dict[str, Fields] = {
    "tiny-llama": {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    },
    "small-llama": {
        "model_type": "llama",
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 8,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
}

SEQ2SEQ: dict[str, Fields] = {
    "tiny-t5": {
        "model_type": "t5",
        "d_model": 128,
        "d_kv": 32,
        "d_ff": 352,
        "num_layers": 3,
        "num_decoder_layers": 3,
        "num_heads": 4,
        "dropout_rate": 0.0,
        "feed_forward_proj": "gated-gelu",
    },
}
"""Small decoders to train from random weights, of 1 to 20 M parameters on a few hundred pieces of
vocabulary; `vocab_size` and the special ids come from the tokenizer."""


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def read_config(name: str, builtin: Mapping[str, Fields]) -> Fields:
    """Return the configuration of a name, as plain JSON values; may download."""
    if name in builtin:
        return dict(builtin[name])
    try:
        stored = PreTrainedConfig.get_config_dict(name)[0]
        register_pair(stored)
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ValueError(
            f"name: no configuration for {name!r} ({one_line(error)}); expected a folder with a "
            f"config.json, a hub id, or a built-in name{did_you_mean(name, builtin)}"
        ) from error
    fields: Fields = _yaml_values(config.to_dict())
    if stored.get("tie_word_embeddings") is False:
        fields["tie_word_embeddings"] = False  # T5's configuration forgets it: see `untie_head`
    return fields


def _yaml_values(value: Any) -> Any:
    """Return values as parsed from YAML."""
    if isinstance(value, Mapping):
        return {str(key): _yaml_values(inner) for key, inner in value.items()}
    return [_yaml_values(v) for v in value] if isinstance(value, (list, tuple)) else value


def has_weights(name: str | None, builtin: Mapping[str, Fields]) -> bool:
    """Return True for a hub id and for a folder with weights."""
    if name is None or name in builtin:
        return False
    path = Path(name)
    if path.exists():
        return path.is_dir() and any(path.glob("*.safetensors*"))
    return True


def make_config(fields: Fields, options: Fields, tokenizer: Tokenizer) -> Any:
    """Return a transformers configuration; `options` override its fields.

    Vocabulary fields that are not set get the tokenizer's size and special ids. Raise ValueError
    for an unknown kind of model or an unknown field.
    """
    fields = dict(fields)
    register_pair(fields)
    kind = fields.pop("model_type", None)
    if kind not in CONFIG_MAPPING:
        raise ValueError(
            f"config.model_type: found {kind!r}, expected a kind of model that transformers "
            f"has{did_you_mean(str(kind), CONFIG_MAPPING)}"
        )
    fields = _with_vocabulary(fields, tokenizer)
    family = CONFIG_MAPPING[kind]
    default_config: Any = family(
        **fields if getattr(family, "has_no_defaults_at_init", False) else {}
    )
    for key in options:
        if key not in fields and not hasattr(default_config, key):
            raise ValueError(
                f"options.{key}: {kind} has no such "
                f"field{did_you_mean(key, default_config.to_dict())}"
            )
    own_names = {family.attribute_map.get(key, key): value for key, value in options.items()}
    try:
        return family(**{**fields, **own_names})
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise ValueError(f"config: {kind} refuses it: {one_line(error)}") from error


def build_model(auto: Any, config: Any, attn: str, dtype: torch.dtype) -> Any:
    """Return the model of a configuration, with random weights. Raise ValueError if it cannot be
    built, or not with that attention."""
    try:
        return auto.from_config(config, attn_implementation=attn, dtype=dtype)
    except Exception as error:  # any error of a class of the library
        family = auto._model_mapping.get(type(config), None)
        if attn == "sdpa" and not getattr(family, "_supports_sdpa", True):
            cure = f"attn: {config.model_type} has no sdpa attention; set attn: eager"
            raise ValueError(cure) from error
        raise ValueError(f"config: {config.model_type}: {one_line(error)}") from error


def _with_vocabulary(fields: Fields, tokenizer: Tokenizer) -> Fields:
    """Return the fields with those of the vocabulary; a pair's (`encoder`, `decoder`) in both."""
    sides = [name for name in ("encoder", "decoder") if isinstance(fields.get(name), Mapping)]
    for name in sides:
        fields = {**fields, name: _with_vocabulary(dict(fields[name]), tokenizer)}
    if sides:
        vocabulary = _vocabulary(tokenizer)
        del vocabulary["vocab_size"]
        return {**vocabulary, **fields}
    return fields if "vocab_size" in fields else {**_vocabulary(tokenizer), **fields}


def _vocabulary(tokenizer: Tokenizer) -> Fields:
    """Return the fields that the tokenizer decides if a configuration has none.

    There is no padding id: its embedding would never train, and masks do not need it.
    """
    bos = tokenizer.bos_id
    return {
        "vocab_size": tokenizer.size,
        "pad_token_id": None,
        "bos_token_id": bos,
        "eos_token_id": tokenizer.eos_id,
        "decoder_start_token_id": tokenizer.pad_id if bos is None else bos,
    }
