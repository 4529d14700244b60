"""Small decoders to train from nothing: configurations of transformers, named.

`vocab_size` and the special ids come from the tokenizer. Sizes are for models of 1 to 20 M
parameters on a few hundred pieces of vocabulary.
"""

from __future__ import annotations

from typing import Any

CAUSAL: dict[str, dict[str, Any]] = {
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

SEQ2SEQ: dict[str, dict[str, Any]] = {
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
        "tie_word_embeddings": False,
    },
}
