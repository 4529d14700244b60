"""The composition against transformers' `LlavaForConditionalGeneration`, weight for weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from sensorium.backbones.causal import Causal
from sensorium.modalities.base import Features

IMAGE = 39
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 40}


@pytest.fixture
def llava() -> Any:
    torch.manual_seed(0)
    text = LlamaConfig(**TEXT, num_attention_heads=4, eos_token_id=1, pad_token_id=0)
    vision = CLIPVisionConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        image_size=16, patch_size=8,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, image_seq_length=4
    )
    model = LlavaForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def ours(llava: Any, tokenizer: Any) -> Causal:
    model = Causal(tokenizer=tokenizer, config=llava.config.text_config.to_dict()).eval()
    model.model.model.load_state_dict(llava.model.language_model.state_dict())
    model.model.lm_head.load_state_dict(llava.lm_head.state_dict())
    return model


@torch.no_grad()
def test_logits_and_greedy_tokens_are_llavas(llava: Any, tokenizer: Any) -> None:
    model = ours(llava, tokenizer)
    pixels = torch.randn(2, 3, 16, 16)
    before, after = torch.randint(3, 39, (2, 3)), torch.randint(3, 39, (2, 2))
    answer = torch.randint(3, 39, (2, 4))
    picture = torch.full((2, 4), IMAGE)
    prompt = torch.cat([before, picture, after], 1)
    whole = torch.cat([prompt, answer], 1)
    reference = llava(
        input_ids=whole, attention_mask=torch.ones_like(whole), pixel_values=pixels
    ).logits

    seen = llava.model.get_image_features(pixel_values=pixels)
    tokens = torch.stack(list(getattr(seen, "pooler_output", seen)))
    context = Features.dense(torch.cat([model.embed(before), tokens, model.embed(after)], 1))
    hidden = model.teacher_force(context, answer, torch.ones_like(answer).bool())
    places = slice(prompt.shape[1] - 1, whole.shape[1] - 1)
    torch.testing.assert_close(model.logits(hidden), reference[:, places], rtol=1e-4, atol=1e-4)
    everything = torch.cat([context.tokens, model.embed(answer)], 1)
    torch.testing.assert_close(model.logits(model(everything)), reference, rtol=1e-4, atol=1e-4)

    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    expected = llava.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), pixel_values=pixels, **options
    )[:, prompt.shape[1] :]
    torch.testing.assert_close(model.generate(context, **options), expected)
