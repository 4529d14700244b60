"""Masked diffusion: who sees whom, the mask's row, and the arithmetic of LLaDA's loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from sensorium.backbones.diffusion import Diffusion
from sensorium.modalities.base import Features
from sensorium.tasks.diffusion.noising import (
    MIN_MASK_PROB,
    apply_mask,
    elbo_weights,
    reveal_schedule,
    sample_timesteps,
)

WIDE = ("llama", "qwen3", "gpt2", "opt", "gemma3")


def make(kind: str, configs: Any, tokenizer: Any, **options: Any) -> Diffusion:
    torch.manual_seed(0)
    return Diffusion(tokenizer=tokenizer, config=configs[kind], **options).eval()


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", WIDE)
def test_a_pass_after_reading_equals_one_pass(
    kind: str, attn: str, configs: Any, tokenizer: Any, padded: Callable[..., Features]
) -> None:
    model = make(kind, configs, tokenizer, attn=attn)
    context, canvas = padded([5, 3], model.dim), padded([4, 6], model.dim)
    whole = model(canvas.tokens, canvas.mask, context, "block")
    parts = model(canvas.tokens, canvas.mask, model.prefill(context, "block"), "block")
    torch.testing.assert_close(parts[canvas.mask], whole[canvas.mask], rtol=1e-5, atol=5e-5)


def test_the_context_never_sees_the_canvas(
    configs: Any, tokenizer: Any, padded: Callable[..., Features]
) -> None:
    """Else a memory that is read once would not do for every pass."""
    model = make("llama", configs, tokenizer)
    context, canvas = padded([5], model.dim), padded([4], model.dim)
    state = model.prefill(context, "block").state
    keys = [layer.keys.clone() for layer in state.layers]
    model(canvas.tokens, canvas.mask, context, "block")
    again = model.prefill(context, "block").state
    assert all(torch.equal(a, layer.keys) for a, layer in zip(keys, again.layers, strict=True))


def test_the_mask_is_an_added_row_and_no_answer(configs: Any, tokenizer: Any) -> None:
    model = make("llama", configs, tokenizer)
    assert model.mask_id == tokenizer.size == model.table.num_embeddings
    hidden = model(model.embed(torch.tensor([[model.mask_id, 5]])), attention="bidirectional")
    logits = model.logits(hidden)
    assert logits.shape[-1] == tokenizer.size + 1
    assert logits[..., model.mask_id].eq(-math.inf).all()
    assert logits[..., : tokenizer.size].isfinite().all()
    some = torch.tensor([7, model.mask_id, 3])
    torch.testing.assert_close(model.logits(hidden, some), logits[..., some])
    F.cross_entropy(logits.flatten(0, 1), torch.tensor([4, 5])).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert model.new_rows["input"].grad is not None


def test_a_tokenizers_own_mask_is_taken(configs: Any, tokenizer: Any) -> None:
    tokenizer.mask_id = 9
    model = make("llama", configs, tokenizer)
    assert model.mask_id == 9 and not model.new_rows
    hidden = model(model.embed(torch.tensor([[9, 5]])), attention="bidirectional")
    assert model.logits(hidden)[..., 9].eq(-math.inf).all()


def test_the_row_survives_weights_and_a_freeze(
    tmp_path: Path, configs: Any, tokenizer: Any
) -> None:
    config = AutoConfig.for_model(**configs["llama"], vocab_size=tokenizer.size)
    expected = AutoModelForCausalLM.from_config(config).eval()
    expected.save_pretrained(tmp_path)
    model = Diffusion(**Diffusion.resolve({"name": str(tmp_path)}), tokenizer=tokenizer)
    model.load()
    assert torch.equal(model.table.weight, expected.get_input_embeddings().weight)
    assert model.mask_id == tokenizer.size and model.new_rows["input"].shape == (1, model.dim)
    model.requires_grad_(False)
    model.unfreeze_added_tokens()
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trains == {"new_rows.input", "new_rows.output"}
    first = model.add_tokens(2)
    assert first == model.mask_id + 1


def test_what_a_canvas_cannot_do_is_refused(
    configs: Any, tokenizer: Any, padded: Callable[..., Features]
) -> None:
    model = make("llama", configs, tokenizer)
    context = padded([3], model.dim)
    with pytest.raises(ValueError, match="cannot do causal; use bidirectional, block"):
        model(context.tokens, attention="causal")
    with pytest.raises(ValueError, match="asr_diffusion, or the backbone `causal`"):
        model.generate(context)
    with pytest.raises(ValueError, match="teacher forcing"):
        model.teacher_force(context, torch.zeros(1, 2, dtype=torch.long), context.mask[:, :2])
    with pytest.raises(ValueError, match="mamba2 cannot see both ways"):
        make("mamba2", configs, tokenizer, attn="eager")


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_uniform_logits_give_the_logarithm_of_the_vocabulary(share: float) -> None:
    """The weights `1 / p` are unbiased: the expected loss is ln V at any level."""
    size, rows, length = 8, 4000, 32
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, size, (rows, length), generator=generator)
    answer, shares = torch.ones_like(ids, dtype=torch.bool), torch.full((rows,), share)
    noisy = apply_mask(ids, answer, shares, torch.rand(rows, length, generator=generator), size)
    each = F.cross_entropy(torch.zeros(rows * length, size), ids.flatten(), reduction="none")
    loss = (each.view(rows, length) * elbo_weights(noisy == size, shares, answer)).sum(1)
    spread = float(loss.std()) / math.sqrt(rows)
    assert abs(float(loss.mean()) - math.log(size)) <= 4 * spread + 1e-5


def test_the_prompt_is_never_masked_and_no_mask_is_no_loss() -> None:
    ids, answer = torch.arange(12).view(2, 6), torch.tensor([[False] * 3 + [True] * 3] * 2)
    all_of_it = apply_mask(ids, answer, torch.ones(2), torch.rand(2, 6), 99)
    assert torch.equal(all_of_it[:, :3], ids[:, :3]) and all_of_it[:, 3:].eq(99).all()
    none = apply_mask(ids, answer, torch.full((2,), MIN_MASK_PROB), torch.full((2, 6), 0.5), 99)
    assert torch.equal(none, ids)
    assert elbo_weights(none == 99, torch.full((2,), MIN_MASK_PROB), answer).eq(0).all()


def test_padding_with_eos_counts_in_the_length() -> None:
    """An answer of 2 tokens padded to 4 weighs its places by 4."""
    answer = torch.tensor([[True, True, True, True]])
    result = elbo_weights(answer, torch.ones(1), answer)
    torch.testing.assert_close(result.sum(1), torch.ones(1))


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_levels_are_one_in_each_part_and_floored(rows: int) -> None:
    for offset in (0.0, 0.3, 0.999):
        share = sample_timesteps(rows, offset)
        assert share.min() >= MIN_MASK_PROB and share.max() <= 1
        part = (((share - MIN_MASK_PROB) / (1 - MIN_MASK_PROB) - offset) % 1 * rows).round() % rows
        assert sorted(part.tolist()) == list(range(rows))


@pytest.mark.parametrize(("masks", "steps"), [(10, 4), (3, 8), (1, 1), (0, 3), (64, 7)])
def test_reveal_schedules(masks: int, steps: int) -> None:
    result = reveal_schedule(masks, steps)
    assert len(result) == steps and sum(result) == masks
    assert result == sorted(result, reverse=True) and max(result) - min(result) <= 1
    assert reveal_schedule(10, 4) == [3, 3, 2, 2]
