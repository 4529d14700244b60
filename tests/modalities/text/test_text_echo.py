"""Echo embeddings: a causal model reads a text twice, and the second reading is given."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.modalities.text.causal_lm import CausalLM
from sensorium.modalities.text.tokenizers import BPE

TEXTS = ["a red robot", "the small robot pushes a blue puck to the goal, slowly", "x"]
LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 96,
}


@pytest.fixture
def pair(bpe: BPE) -> tuple[CausalLM, CausalLM]:
    """The same model with and without echo."""
    options: dict[str, Any] = {"config": LLAMA, "tokenizer": bpe, "max_length": 48}
    echo, plain = CausalLM(**options, echo=True).eval(), CausalLM(**options).eval()
    plain.load_state_dict(echo.state_dict())
    return echo, plain


def batch_of(encoder: CausalLM, texts: list[str]) -> dict[str, torch.Tensor]:
    return encoder.collate([encoder.processor.prepare(text) for text in texts])


def test_it_is_the_second_half_of_a_text_written_twice(pair: tuple[CausalLM, CausalLM]) -> None:
    echo, plain = pair
    features = echo(**batch_of(echo, TEXTS), hidden_states=(0, -1))
    for row, text in enumerate(TEXTS):
        ids = plain.processor.prepare(text)["ids"]
        twice = torch.cat([ids, ids])[None]
        known = plain(
            ids=twice, mask=torch.ones_like(twice, dtype=torch.bool), hidden_states=(0, -1)
        )
        length = len(ids)
        assert int(features.mask[row].sum()) == length
        torch.testing.assert_close(features.tokens[row, :length], known.tokens[0, length:])
        torch.testing.assert_close(features.pooled[row], known.tokens[0, -1])
        assert features.tokens[row, length:].eq(0).all()
        for ours, theirs in zip(features.hidden_states, known.hidden_states, strict=True):
            torch.testing.assert_close(ours.tokens[row, :length], theirs.tokens[0, length:])


def test_its_first_token_has_seen_the_last(pair: tuple[CausalLM, CausalLM]) -> None:
    """Unlike the first token of a plain causal model."""
    for encoder, sees in zip(pair, (True, False), strict=True):
        batch = batch_of(encoder, [TEXTS[1]])
        first = encoder(**batch).tokens[0, 0]
        batch["ids"][0, -1] = (batch["ids"][0, -1] + 1) % 200
        assert torch.equal(first, encoder(**batch).tokens[0, 0]) != sees


def test_it_keeps_the_rows_apart_and_runs_on_meta(pair: tuple[CausalLM, CausalLM]) -> None:
    echo, _ = pair
    batch = batch_of(echo, TEXTS)
    whole = echo(**batch)
    for row, text in enumerate(TEXTS):
        alone = echo(**batch_of(echo, [text]))
        length = int(alone.mask.sum())
        torch.testing.assert_close(
            alone.tokens[0, :length], whole.tokens[row, :length], rtol=1e-5, atol=1e-5
        )
    meta = echo.to("meta")(**{name: tensor.to("meta") for name, tensor in batch.items()})
    assert meta.tokens.shape == whole.tokens.shape


def test_a_model_with_too_few_positions_is_refused(bpe: BPE) -> None:
    with pytest.raises(ValueError, match=r"max_length 64 twice, the model has 96 .* 48 or less"):
        CausalLM(config=LLAMA, tokenizer=bpe, max_length=64, echo=True)
