"""Logits as tokens, and averages of words."""

from __future__ import annotations

import pytest
import torch
from encoder_cases import TEXT, TEXTS, build

from sensorium.connectors.lexical import Lexical
from sensorium.engine.model import build as compose
from sensorium.engine.recipe import parse_recipe
from sensorium.modalities.text.encoders.averaging import DeepAveraging
from sensorium.modalities.text.tokenizers import Bytes

LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def test_its_tokens_are_the_model_s_logits() -> None:
    encoder = build("text", "vocabulary")
    inner = encoder.encoder
    batch = encoder.collate([encoder.processor.prepare(text) for text in TEXTS])
    features = encoder(**batch)
    with torch.no_grad():
        expected = inner.model(input_ids=batch["ids"], attention_mask=batch["mask"].long()).logits
    real = batch["mask"]
    torch.testing.assert_close(features.tokens[real], expected[real], rtol=1e-5, atol=1e-5)
    assert features.tokens.shape[-1] == encoder.dim == inner.whole.vocab_size
    assert "transformers with a head" in TEXT


def causal(**options: object) -> torch.nn.Module:
    inner = {"type": "causal_lm", "config": LLAMA, "tokenizer": "bytes", "max_length": 32}
    encoder = {"type": "vocabulary", "encoder": {**inner, "lm_head": True, **options}}
    query = {"modality": "text", "encoder": encoder, "connector": "lexical"}
    search = {"type": "contrastive", "streams": ["query", "passage"], "similarity": "dot"}
    return compose(
        parse_recipe(
            {
                "inputs": {"query": query, "passage": {"share": "query"}},
                "tasks": {"search": {**search, "dim": None}},
            }
        )
    ).stream("query")


@pytest.mark.parametrize("echo", [True, False])
def test_with_echo_every_token_has_read_the_text(echo: bool) -> None:
    """Mistral-SPLADE: the first token's logits depend on the last; without echo they do not."""
    stream = causal(echo=echo).eval()
    encoder = stream.encoder
    first, second = (encoder.collate([encoder.processor.prepare(text)]) for text in ("abc", "abd"))
    same = torch.allclose(encoder(**first).tokens[:, 0], encoder(**second).tokens[:, 0])
    assert same is not echo
    assert isinstance(stream.connector, Lexical) and not list(stream.connector.parameters())
    vector = stream(encoder(**first)).pooled
    assert vector.shape == (1, encoder.dim) and (vector >= 0).all() and vector.any()


@pytest.mark.parametrize("bigrams", [0, 64])
def test_an_average_knows_no_order_but_of_bigrams(bigrams: int) -> None:
    torch.manual_seed(0)
    encoder = DeepAveraging(tokenizer=Bytes(), dim=8, bigrams=bigrams)
    texts = [[1, 2, 3, 4], [4, 2, 1, 3]]
    vectors = encoder(torch.tensor(texts), torch.ones(2, 4, dtype=torch.bool)).pooled
    assert torch.allclose(vectors[0], vectors[1]) is (bigrams == 0)
