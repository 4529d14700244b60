"""Generation: equal to a loop over `forward`, to transformers' own, and to teacher forcing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorium.backbones.visibility import Attention
from sensorium.modalities.base import Features

STACKS = ("llama", "qwen3", "mistral", "mistral-short", "gemma3", "gemma3-short", "gpt2", "opt")
MORE = ("phi", "gpt_neox", "cohere", "mixtral", "gpt_bigcode", "modernbert-decoder")
PAIRS = ("t5", "bart", "t5gemma")
EAGER = ("gemma2", "t5gemma", "bloom", "mamba2")
CASES = [
    *[(kind, how) for kind in (*STACKS, *MORE, "gemma2") for how in ("causal", "prefix")],
    *[(kind, "causal") for kind in (*PAIRS, "bloom", "mamba2")],
]
NEW = 6


def attn(kind: str) -> str:
    return "eager" if kind in EAGER else "sdpa"


def loop(model: Any, context: Features, how: Attention, steps: int) -> Tensor:
    """Greedy ids `[B, steps]`, each from a whole pass of teacher forcing."""
    ids = torch.zeros(len(context.tokens), 0, dtype=torch.long)
    for _ in range(steps):
        padded = torch.cat([ids, torch.full_like(context.mask[:, :1], 0, dtype=torch.long)], 1)
        hidden = model.teacher_force(context, padded, torch.ones_like(padded).bool(), how)
        ids = torch.cat([ids, model.logits(hidden[:, -1:]).argmax(-1)], 1)
    return ids


def cut(ids: Tensor, eos: int, pad: int) -> Tensor:
    """What comes after the first end of a row is padding."""
    ended = (ids == eos).cumsum(1) - (ids == eos).long() > 0
    return ids.masked_fill(ended, pad)


@pytest.mark.quick_share(3)
@pytest.mark.parametrize(("kind", "how"), CASES)
@torch.no_grad()
def test_greedy_is_a_loop_over_forward(
    kind: str,
    how: Attention,
    build: Callable[..., Any],
    padded: Callable[..., Features],
    tokenizer: Any,
) -> None:
    model = build(kind, attn=attn(kind))
    context = padded([6, 2, 4], model.dim, 7)
    result = model.generate(context, how, max_new_tokens=NEW)
    expected = cut(loop(model, context, how, NEW), tokenizer.eos_id, tokenizer.pad_id)
    torch.testing.assert_close(result, expected[:, : result.shape[1]])
    assert result.unique().numel() > 2  # a model that repeats itself would agree with anything


@pytest.mark.quick_share(9)
@pytest.mark.parametrize("pad_is_eos", [False, True])
@pytest.mark.parametrize("kind", [*STACKS, *MORE, *PAIRS, "gemma2", "bloom", "mamba2"])
@torch.no_grad()
def test_a_row_generates_alone_what_it_generates_in_a_batch(
    kind: str,
    pad_is_eos: bool,
    build: Callable[..., Any],
    padded: Callable[..., Features],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """huggingface/transformers#25790 and #29419: padded rows shift absolute positions, and a pad
    id that is the end's is taken for an end."""
    model = build(kind, attn=attn(kind))
    if pad_is_eos:
        monkeypatch.setattr(model.tokenizer, "pad_id", model.tokenizer.eos_id)
    context = padded([2, 9], model.dim)
    together = model.generate(context, max_new_tokens=NEW)
    for row, length in enumerate((2, 9)):
        single = Features(
            context.tokens[row : row + 1, :length], context.mask[row : row + 1, :length]
        )
        alone = model.generate(single, max_new_tokens=NEW)[0]
        torch.testing.assert_close(together[row, : len(alone)], alone)
        assert (together[row, len(alone) :] == model.tokenizer.pad_id).all()


@pytest.mark.parametrize("kind", [*STACKS, "bloom", "mamba2"])
@torch.no_grad()
def test_plain_prompts_are_as_with_ids(kind: str, build: Callable[..., Any]) -> None:
    model = build(kind, attn=attn(kind))
    ids = torch.randint(3, 40, (2, 7))
    options = {"max_new_tokens": NEW, "eos_token_id": 1, "pad_token_id": 0}
    expected = model.model.generate(ids, attention_mask=torch.ones_like(ids), **options)[:, 7:]
    result = model.generate(Features.dense(model.embed(ids)), max_new_tokens=NEW)
    torch.testing.assert_close(result, expected)
    beams = model.model.generate(ids, num_beams=3, **options)[:, 7:]
    result = model.generate(Features.dense(model.embed(ids)), max_new_tokens=NEW, num_beams=3)
    torch.testing.assert_close(result, beams)


@pytest.mark.parametrize("kind", PAIRS)
@torch.no_grad()
def test_pairs_generate_as_with_ids(kind: str, build: Callable[..., Any]) -> None:
    model = build(kind, attn=attn(kind))
    ids = torch.randint(3, 40, (2, 7))
    options = {"max_new_tokens": NEW, "eos_token_id": 1, "pad_token_id": 0, "num_beams": 2}
    options |= {"decoder_start_token_id": model.start_ids[0], "forced_eos_token_id": None}
    model.model.generation_config.forced_eos_token_id = None
    expected = model.model.generate(ids, attention_mask=torch.ones_like(ids), **options)[:, 1:]
    result = model.generate(Features.dense(model.embed(ids)), max_new_tokens=NEW, num_beams=2)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("kind", ["llama", "gemma3-short", "gpt2"])
@torch.no_grad()
def test_beams_under_prefix_do_not_mix_rows(
    kind: str, build: Callable[..., Any], padded: Callable[..., Features]
) -> None:
    model = build(kind)
    context = padded([5, 3], model.dim)
    options = {"max_new_tokens": NEW, "num_beams": 3, "eos_token_id": None}
    both = model.generate(context, "prefix", **options)
    for row, length in enumerate((5, 3)):
        alone = Features.dense(context.tokens[row : row + 1, :length])
        torch.testing.assert_close(model.generate(alone, "prefix", **options)[0], both[row])
    one = model.generate(context, "prefix", **{**options, "num_beams": 1})
    several = model.generate(context, "prefix", **options, num_return_sequences=2, do_sample=False)
    assert several.shape[0] == 2 * one.shape[0]


@pytest.mark.parametrize(("kind", "how"), [c for c in CASES if c[0] not in PAIRS])
@torch.no_grad()
def test_continuation_is_one_row(
    kind: str, how: Attention, build: Callable[..., Any], padded: Callable[..., Features]
) -> None:
    """Nothing stands between prompt and answer: the hidden states of [context, ids]."""
    model = build(kind, attn=attn(kind))
    context, ids = padded([6, 3], model.dim), torch.randint(3, 40, (2, 4))
    hidden = model.teacher_force(context, ids, torch.ones_like(ids).bool(), how)
    for row, length in enumerate((6, 3)):
        prompt = context.tokens[row : row + 1, :length]
        answer = model.embed(ids[row : row + 1, :3])
        if how == "causal":
            whole = model(torch.cat([prompt, answer], 1))[:, length - 1 :]
        else:
            first = Features.dense(prompt[:, :-1])
            whole = model(torch.cat([prompt[:, -1:], answer], 1), context=first, attention=how)
        torch.testing.assert_close(hidden[row], whole[0], rtol=1e-5, atol=5e-5)


def test_generate_takes_no_canvas(build: Callable[..., Any], padded: Callable[..., Any]) -> None:
    for kind in ("llama", "t5"):
        model = build(kind)
        with pytest.raises(ValueError, match="generate takes causal or prefix"):
            model.generate(padded([3], model.dim), "block")


@torch.no_grad()
def test_options_reach_transformers(
    build: Callable[..., Any], padded: Callable[..., Features]
) -> None:
    model = build("llama")
    context = padded([3, 2], model.dim)
    greedy = model.generate(context, max_new_tokens=4, eos_token_id=None)
    ended = model.generate(context, max_new_tokens=4, eos_token_id=int(greedy[0, 0]))
    assert int(ended[0, 0]) == int(greedy[0, 0])
    assert (ended[0, 1:] == 0).all()
    torch.manual_seed(0)
    options = {"max_new_tokens": 4, "do_sample": True, "temperature": 5.0, "eos_token_id": None}
    first, second = model.generate(context, **options), model.generate(context, **options)
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match="max_new_tokns"):
        model.generate(context, max_new_tokns=4)
