"""Layer hooks and hidden states of a forward, and a backbone as a decoder with a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorium.modalities.base import Decoder, Features

STACKS = (
    *("llama", "qwen3", "mistral", "mistral-short", "gemma2", "gemma3", "gemma3-short", "gpt2"),
    *("opt", "phi", "gpt_neox", "cohere", "bloom", "mamba2"),
    *("mixtral", "gpt_bigcode", "modernbert-decoder"),
)
PAIRS = ("t5", "bart", "t5gemma")
EAGER = ("gemma2", "t5gemma", "bloom", "mamba2")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def make(kind: str, build: Callable[..., Any]) -> Any:
    model = build(kind, attn="eager" if kind in EAGER else "sdpa")
    assert {"layer_hooks", "hidden_states"} <= model.supports
    return model


def same(tokens: Tensor, mask: Tensor) -> Tensor:
    return tokens


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("kind", [*STACKS, *PAIRS])
def test_an_identity_hook_changes_no_bit(
    kind: str, build: Callable[..., Any], padded: Callable[..., Features]
) -> None:
    model = make(kind, build)
    context, embeds = padded([5, 3], model.dim), padded([4, 2], model.dim, 6)
    contexts = [context] if kind in PAIRS else [None, context]
    if "prefix" in model.supports:
        contexts.append(model.prefill(context))
    for before in contexts:
        plain = model(embeds.tokens, embeds.mask, before)
        hooked = model(embeds.tokens, embeds.mask, before, layer_hooks={0: same, -1: same})
        assert torch.equal(hooked, plain)
    ids, mask = torch.randint(3, 40, (2, 4)), embeds.mask[:, :4]
    plain = model.teacher_force(context, ids, mask)
    assert torch.equal(model.teacher_force(context, ids, mask, layer_hooks={1: same}), plain)


@pytest.mark.parametrize("kind", STACKS)
def test_hidden_states_are_the_models_own(kind: str, build: Callable[..., Any]) -> None:
    model = make(kind, build)
    ids = torch.randint(3, 40, (2, 6))
    expected = model.model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    embeds = model.embed(ids)
    last, states = model(embeds, hidden_states=(1, 0, -1))
    assert torch.equal(last, model(embeds))
    assert torch.equal(states[0], last) and torch.equal(states[2], last)
    first_layer = expected[
        0 if kind == "mamba2" else 1
    ]  # Mamba's list begins behind the first layer
    torch.testing.assert_close(states[1], first_layer, **CLOSE)
    torch.testing.assert_close(last, expected[-1], **CLOSE)
    context = Features.dense(embeds[:, :4])
    _, (first,) = model(embeds[:, 4:], context=context, hidden_states=(0,))
    torch.testing.assert_close(first, first_layer[:, 4:], **CLOSE)


@pytest.mark.parametrize("kind", PAIRS)
def test_hidden_states_of_pairs(kind: str, build: Callable[..., Any]) -> None:
    """Of the decoder behind a context, of the encoder alone."""
    model = make(kind, build)
    ids, known = torch.randint(3, 40, (2, 5)), torch.randint(3, 40, (2, 4))
    mask = torch.ones_like(ids)
    out = model.model(
        input_ids=ids, attention_mask=mask, decoder_input_ids=known, output_hidden_states=True
    )
    context = Features.dense(model.embed(ids))
    last, (first,) = model(model.embed_positions(known), context=context, hidden_states=(0,))
    torch.testing.assert_close(first, out.decoder_hidden_states[1], **CLOSE)
    torch.testing.assert_close(last, out.decoder_hidden_states[-1], **CLOSE)
    last, (first,) = model(context.tokens, attention="bidirectional", hidden_states=(0,))
    torch.testing.assert_close(first, out.encoder_hidden_states[1], **CLOSE)
    torch.testing.assert_close(last, out.encoder_hidden_states[-1], **CLOSE)


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2", "t5"])
def test_a_hook_sees_the_embeds_as_the_caller_has_them(
    kind: str, build: Callable[..., Any], padded: Callable[..., Features]
) -> None:
    """Padding in front and between, behind a context: in one pass and behind a cache."""
    model = make(kind, build)
    context, embeds = padded([5, 3], model.dim), torch.randn(2, 4, model.dim)
    mask = torch.tensor([[False, True, False, True], [True, True, True, False]])
    seen: list[tuple[Tensor, Tensor]] = []

    def double(tokens: Tensor, real: Tensor) -> Tensor:
        seen.append((tokens, real))
        return tokens * torch.arange(1, 5)[None, :, None]

    once, states = model(embeds, mask, context, layer_hooks={0: double}, hidden_states=(0,))
    cache = model.prefill(context)
    behind = model(embeds, mask, cache, layer_hooks={0: double})
    assert all(torch.equal(real, mask) for _, real in seen)
    torch.testing.assert_close(seen[0][0][mask], seen[1][0][mask], **CLOSE)
    torch.testing.assert_close(states[0], seen[0][0] * torch.arange(1, 5)[None, :, None])
    torch.testing.assert_close(once[mask], behind[mask], **CLOSE)
    assert not torch.allclose(once[mask], model(embeds, mask, context)[mask], atol=1e-3)


def test_a_hook_is_gone_after_its_forward(build: Callable[..., Any]) -> None:
    model, embeds = build("llama"), torch.randn(1, 3, 32)
    plain = model(embeds)

    def fail(tokens: Tensor, mask: Tensor) -> Tensor:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        model(embeds, layer_hooks={0: fail})
    assert torch.equal(model(embeds), plain)
    with pytest.raises(ValueError, match="llama: found layer 2, expected one of 2 layers"):
        model(embeds, layer_hooks={2: same})
    with pytest.raises(ValueError, match="llama: found layer -3, expected one of 2 layers"):
        model(embeds, hidden_states=(-3,))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba2"])
def test_the_loss_is_that_of_transformers(kind: str, build: Callable[..., Any]) -> None:
    """With labels of -100 on the prompt and on padding."""
    model = make(kind, build)
    assert isinstance(model, Decoder)
    ids = torch.randint(3, 40, (2, 9))
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    labels = torch.cat([torch.full((2, 5), -100), ids[:, 5:].masked_fill(~mask, -100)], 1)
    expected = model.model(input_ids=ids, labels=labels).loss
    context = Features.dense(model.embed(ids[:, :5]))
    loss = model.loss(context, {"ids": ids[:, 5:], "mask": mask})
    assert int(loss.count) == 6
    torch.testing.assert_close(loss.total / loss.count, expected, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("kind", PAIRS)
def test_the_loss_of_pairs(kind: str, build: Callable[..., Any]) -> None:
    model = make(kind, build)
    ids, target = torch.randint(3, 40, (2, 5)), torch.randint(3, 40, (2, 4))
    known = torch.cat([torch.full_like(target[:, :1], model.start_ids[0]), target[:, :-1]], 1)
    expected = model.model(input_ids=ids, decoder_input_ids=known, labels=target).loss
    context = Features.dense(model.embed(ids))
    loss = model.loss(context, {"ids": target, "mask": target > 0})
    torch.testing.assert_close(loss.total / loss.count, expected, rtol=1e-5, atol=5e-5)
