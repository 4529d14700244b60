"""What every decoder must hold, under every attention and both implementations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorium.backbones.visibility import Attention
from sensorium.modalities.base import Features

WIDE = ("llama", "qwen3", "mistral", "gemma3", "gpt2", "opt", "phi", "gpt_neox")
WIDE += ("mixtral", "gpt_bigcode", "modernbert-decoder")
SHORT = ("mistral-short", "gemma3-short")
PAIRS = ("t5", "bart", "t5gemma")
MASKLESS = ("bloom", "mamba2")
EAGER = ("gemma2", "t5gemma", *MASKLESS)
KINDS: tuple[Attention, ...] = ("causal", "prefix", "block")
CASES = [
    *[(kind, how) for kind in (*WIDE, *PAIRS) for how in KINDS],
    *[(kind, how) for kind in SHORT for how in ("causal", "prefix")],
    ("gemma2", "prefix"),
    *[(kind, "causal") for kind in MASKLESS],
]


def implementations(kind: str) -> tuple[str, ...]:
    return ("eager",) if kind in EAGER else ("sdpa", "eager")


ALL = [(k, how, attn) for k, how in CASES for attn in implementations(k)]
READS = [case for case in ALL if case[0] not in MASKLESS]


def moved(row: Tensor, at: int) -> Tensor:
    row = row.clone()
    row[:, at] += torch.arange(row.shape[-1]).sin()  # not constant: layer norm would not see it
    return row


@pytest.mark.quick_share(9)
@pytest.mark.parametrize(("kind", "how", "attn"), ALL)
def test_who_sees_whom(
    kind: str, how: Attention, attn: str, build: Callable[..., Any], padded: Callable[..., Features]
) -> None:
    model = build(kind, attn=attn)
    context, embeds = padded([6, 6], model.dim), torch.randn(2, 4, model.dim)
    before = model(embeds, context=context, attention=how)
    at = 2
    after = model(moved(embeds, at), context=context, attention=how)
    changed = (after - before).abs().amax((0, 2)) > 1e-6
    assert changed[at:].all()
    assert bool(changed[:at].any()) == (how == "block")
    earlier = context.replace(tokens=moved(context.tokens, 5))
    assert (
        (model(embeds, context=earlier, attention=how) - before).abs().amax((0, 2)) > 1e-6
    ).all()


@pytest.mark.quick_share(3)
@pytest.mark.parametrize(("kind", "attn"), [(k, a) for k in WIDE for a in ("sdpa", "eager")])
@pytest.mark.parametrize("how", KINDS)
def test_the_context_sees_itself_and_nothing_after(
    kind: str, attn: str, how: Attention, build: Callable[..., Any], padded: Callable[..., Features]
) -> None:
    """Keys of the context in the cache: they tell whether it was read both ways."""
    model = build(kind, attn=attn)
    context = padded([5], model.dim)
    keys = [layer.keys for layer in model.prefill(context, how).state.layers]
    other = context.replace(tokens=moved(context.tokens, 4))
    moved_keys = [layer.keys for layer in model.prefill(other, how).state.layers]
    changed = (keys[1] - moved_keys[1]).abs().amax((0, 1, 3)) > 1e-6
    assert changed[4]
    assert bool(changed[:4].all()) == (how != "causal")
    assert bool(changed[:4].any()) == (how != "causal")


@pytest.mark.quick_share(12)
@pytest.mark.parametrize(("kind", "how", "attn"), READS)
def test_read_and_forward_are_one_pass(
    kind: str, how: Attention, attn: str, build: Callable[..., Any], padded: Callable[..., Features]
) -> None:
    model = build(kind, attn=attn)
    context, positions = padded([6, 3, 5], model.dim), padded([2, 4, 3], model.dim)
    tokens, embeds = context.tokens.requires_grad_(), positions.tokens.requires_grad_()
    weights = torch.randn(3, 4, model.dim) * positions.mask[..., None]

    def gradients(hidden: Tensor) -> list[Tensor]:
        inputs = [tokens, embeds, *model.parameters()]
        result = torch.autograd.grad((hidden * weights).sum(), inputs, allow_unused=True)
        return [g for g in result if g is not None]

    whole = model(embeds, positions.mask, context, how)
    memory = model.prefill(context, how)
    parts = model(embeds, positions.mask, memory, how)
    real = positions.mask
    torch.testing.assert_close(parts[real], whole[real], rtol=1e-5, atol=5e-5)
    in_parts, in_one = gradients(parts), gradients(whole)
    scale = max(float(g.abs().max()) for g in in_one)
    for a, b in zip(in_parts, in_one, strict=True):
        torch.testing.assert_close(a / scale, b / scale, rtol=1e-5, atol=5e-5)
    some = torch.tensor([2, 0])
    alone = model(embeds[some], positions.mask[some], model.select_rows(memory, some), how)
    torch.testing.assert_close(alone[real[some]], whole[some][real[some]], rtol=1e-5, atol=5e-5)
    again = model(embeds, positions.mask, memory, how)  # the memory is as it was
    torch.testing.assert_close(again, parts, rtol=0, atol=0)


@pytest.mark.quick_share(4)
@pytest.mark.parametrize(("kind", "how", "attn"), ALL)
def test_padding_changes_nothing(
    kind: str, how: Attention, attn: str, build: Callable[..., Any], padded: Callable[..., Features]
) -> None:
    model = build(kind, attn=attn)
    context, positions = padded([5, 3], model.dim, 7), padded([4, 2], model.dim, 6)
    hidden = model(positions.tokens, positions.mask, context, how)
    left = model(positions.tokens.flip(1).roll(0, 1), positions.mask.flip(1), context, how)
    for row, (p, n) in enumerate(((5, 4), (3, 2))):
        alone = model(
            positions.tokens[row : row + 1, :n],
            context=Features.dense(context.tokens[row : row + 1, :p]),
            attention=how,
        )[0]
        torch.testing.assert_close(hidden[row, :n], alone, rtol=1e-5, atol=5e-5)
        turned = model(
            positions.tokens[row : row + 1, :n].flip(1),
            context=Features.dense(context.tokens[row : row + 1, :p]),
            attention=how,
        )[0]
        torch.testing.assert_close(left[row, -n:], turned, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize(("kind", "attn"), [(k, a) for k in WIDE for a in ("sdpa", "eager")])
def test_bidirectional_sees_everything(kind: str, attn: str, build: Callable[..., Any]) -> None:
    model = build(kind, attn=attn)
    embeds, mask = torch.randn(1, 5, model.dim), torch.tensor([[True] * 4 + [False]])
    before = model(embeds, mask, attention="bidirectional")
    after = model(moved(embeds, 3), mask, attention="bidirectional")
    assert ((after - before).abs().amax(2)[0, :4] > 1e-6).all()
    padding = model(moved(embeds, 4), mask, attention="bidirectional")
    torch.testing.assert_close(padding[:, :4], before[:, :4])


@pytest.mark.parametrize("kind", PAIRS)
def test_bidirectional_is_the_encoder_of_a_pair(kind: str, build: Callable[..., Any]) -> None:
    model = build(kind, attn=implementations(kind)[0])
    ids = torch.randint(3, 40, (2, 5))
    hidden = model(model.embed(ids), attention="bidirectional")
    expected = model.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("kind", [*WIDE, *SHORT, "gemma2", *MASKLESS])
def test_logits_are_the_models_own(kind: str, build: Callable[..., Any]) -> None:
    model = build(kind, attn=implementations(kind)[0])
    ids = torch.randint(3, 40, (2, 9))
    expected = model.model(input_ids=ids, use_cache=False).logits
    hidden = model(model.embed(ids))
    torch.testing.assert_close(model.logits(hidden), expected, rtol=1e-5, atol=5e-5)
    some = torch.tensor([7, 3, 21])
    torch.testing.assert_close(
        model.logits(hidden, some), expected[..., some], rtol=1e-5, atol=5e-5
    )
    split = model(model.embed(ids[:, 6:]), context=Features.dense(model.embed(ids[:, :6])))
    torch.testing.assert_close(model.logits(split), expected[:, 6:], rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("kind", PAIRS)
def test_logits_of_pairs_are_their_own(kind: str, build: Callable[..., Any]) -> None:
    model = build(kind, attn=implementations(kind)[0])
    ids, known = torch.randint(3, 40, (2, 6)), torch.randint(3, 40, (2, 4))
    expected = model.model(
        input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=known
    ).logits
    hidden = model(model.embed_positions(known), context=Features.dense(model.embed(ids)))
    torch.testing.assert_close(model.logits(hidden), expected, rtol=1e-5, atol=5e-5)
    some = torch.tensor([7, 3])
    torch.testing.assert_close(
        model.logits(hidden, some), expected[..., some], rtol=1e-5, atol=5e-5
    )


@pytest.mark.parametrize("kind", ["mistral-short", "gemma3-short"])
def test_short_windows_are_kept_in_our_masks(
    kind: str, build: Callable[..., Any], padded: Callable[..., Features]
) -> None:
    """The path with our masks equals the model's own path without any."""
    model = build(kind)
    context, embeds = padded([7, 7], model.dim), torch.randn(2, 5, model.dim)
    expected = model.model(
        inputs_embeds=torch.cat([context.tokens, embeds], 1), use_cache=False
    ).logits
    ours = model.logits(model(embeds, context=model.prefill(context)))
    torch.testing.assert_close(ours, expected[:, 7:], rtol=1e-5, atol=5e-5)
    for how in ("block", "bidirectional"):
        with pytest.raises(ValueError, match=r"sliding window of 4, found 5 .*sliding_window: 5"):
            model(embeds, attention=how)


@pytest.mark.parametrize("kind", MASKLESS)
@pytest.mark.parametrize("how", ["prefix", "block", "bidirectional"])
def test_what_cannot_be_done_is_refused_by_name(
    kind: str, how: Attention, build: Callable[..., Any], padded: Callable[..., Features]
) -> None:
    model = build(kind, attn="eager")
    assert "causal" in model.supports and how not in model.supports
    assert kind in (model.unsupported_reason(how) or "")
    with pytest.raises(ValueError, match=rf"{kind} cannot do {how} .* it can do causal"):
        model(torch.randn(1, 3, model.dim), attention=how)
    with pytest.raises(ValueError, match=rf"{kind} cannot prefill"):
        model.prefill(padded([3], model.dim))


def test_mistakes_are_named(build: Callable[..., Any], padded: Callable[..., Features]) -> None:
    model = build("gpt2")
    context, embeds = padded([3], model.dim), torch.randn(1, 2, model.dim)
    with pytest.raises(ValueError, match="takes no context"):
        model(embeds, context=context, attention="bidirectional")
    with pytest.raises(ValueError, match="was prefilled for causal attention, found block"):
        model(embeds, context=model.prefill(context), attention="block")
    with pytest.raises(ValueError, match="gpt2 has 64 positions, found 65"):
        model(torch.randn(1, 65, model.dim))
    with pytest.raises(ValueError, match="needs a context"):
        build("t5")(embeds)
    empty = Features(torch.randn(2, 3, model.dim), torch.tensor([[True] * 3, [False] * 3]))
    with pytest.raises(ValueError, match="a row is empty"):
        model.generate(empty, max_new_tokens=2)
