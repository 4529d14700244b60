"""Text encoders whose model calls its pooler, or whose states are wider than its hidden size."""

from __future__ import annotations

import pytest
import torch
from transformers import CONFIG_MAPPING

from sensorium.modalities.text.tokenizers import Bytes
from sensorium.modalities.text.transformers import TransformersText
from sensorium.scripts.coverage.encoder_cases import as_json
from sensorium.scripts.coverage.tiny_configs import tiny_config


def encoder_of(model_type: str) -> TransformersText:
    config = as_json(tiny_config(CONFIG_MAPPING[model_type]))
    config.pop("vocab_size")
    return TransformersText(config=config, tokenizer=Bytes(), max_length=16).eval()


@pytest.mark.parametrize("model_type", ["bert", "layoutlm", "squeezebert"])
def test_a_model_runs_without_its_pooler(model_type: str) -> None:
    encoder = encoder_of(model_type)
    ids = torch.tensor([[5, 6, 7]])
    features = encoder(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool))
    assert features.tokens.shape == (1, 3, encoder.dim)
    assert not any("pooler" in name for name, _ in encoder.named_parameters())


def test_states_of_another_width_are_refused() -> None:
    """Reformer returns both of its streams side by side, twice its hidden size."""
    encoder = encoder_of("reformer")
    ids = torch.tensor([[5, 6, 7]])
    with pytest.raises(ValueError, match="states have width 64, expected 32"):
        encoder(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool))
