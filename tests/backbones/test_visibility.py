"""Visibility: masks beyond the named kinds, over families and both attention implementations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorium.backbones.stack import Windows, additive, packed_positions
from sensorium.backbones.visibility import (
    BIDIRECTIONAL,
    BLOCK,
    CAUSAL,
    PREFIX,
    Visibility,
)
from sensorium.modalities.base import Features

WIDE = ("llama", "qwen3", "mistral", "gemma3", "gpt2", "opt", "phi", "gpt_neox", "cohere")
WIDE += ("mixtral", "gpt_bigcode", "modernbert-decoder")
SHORT = ("mistral-short", "gemma3-short")
PAIRS = ("t5", "bart", "t5gemma")
EAGER = ("gemma2", "t5gemma")
STACKS = [(k, a) for k in (*WIDE, *SHORT) for a in ("sdpa", "eager")] + [("gemma2", "eager")]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def row(dim: int, length: int, rows: int = 2) -> Tensor:
    return torch.randn(rows, length, dim)


def depends(output: Tensor, on: Tensor) -> Tensor:
    """`[N]`: which positions of `on [1, N, D]` a hidden state `output [D]` depends on."""
    (gradient,) = torch.autograd.grad(output.square().sum(), on, retain_graph=True)
    return gradient[0].abs().sum(1) > 0


@pytest.mark.quick_share(3)
@pytest.mark.parametrize(("kind", "attn"), STACKS)
def test_constants_are_the_names(kind: str, attn: str, build: Callable[..., Any]) -> None:
    model = build(kind, attn=attn)
    embeds, context = row(model.dim, 4), Features.dense(row(model.dim, 3))
    for name, constant in {"causal": CAUSAL, "prefix": PREFIX, "block": BLOCK}.items():
        if name == "block" and kind in SHORT:
            continue
        named = model(embeds, context=context, attention=name)
        assert torch.equal(model(embeds, context=context, attention=constant), named)
    if kind not in SHORT:
        named = model(embeds, attention="bidirectional")
        assert torch.equal(model(embeds, attention=BIDIRECTIONAL), named)


@pytest.mark.parametrize(("kind", "attn"), STACKS)
def test_a_causal_mask_is_causal(kind: str, attn: str, build: Callable[..., Any]) -> None:
    """As a mask on top of causal attention and, where windows allow it, of bidirectional."""
    model = build(kind, attn=attn)
    embeds, causal = row(model.dim, 6), torch.ones(1, 6, 6, dtype=torch.bool).tril()
    for base in ("causal",) if kind in SHORT else ("causal", "bidirectional"):
        hidden = model(embeds, attention=Visibility(base=base, mask=causal))
        torch.testing.assert_close(hidden, model(embeds), **CLOSE)


@pytest.mark.parametrize(("kind", "attn"), STACKS)
def test_packed_documents_have_the_logits_they_have_alone(
    kind: str, attn: str, build: Callable[..., Any]
) -> None:
    model = build(kind, attn=attn)
    ids = torch.tensor([[7, 7, 7, 3, 3, 3, 3, 5, 5, 0], [2, 2, 2, 2, 2, 9, 0, 0, 0, 0]])
    embeds, mask = row(model.dim, 10), ids > 0
    logits = model.logits(model(embeds, mask, attention=Visibility.documents(ids)))
    for r, start, stop in ((0, 0, 3), (0, 3, 7), (0, 7, 9), (1, 0, 5), (1, 5, 6)):
        alone = model.logits(model(embeds[r : r + 1, start:stop]))[0]
        torch.testing.assert_close(logits[r, start:stop], alone, **CLOSE)


@pytest.mark.quick_share(3)
@pytest.mark.parametrize(("kind", "attn"), STACKS)
def test_documents_that_begin_in_the_context(
    kind: str, attn: str, build: Callable[..., Any]
) -> None:
    """In one pass and behind a cache; the context is padded in its middle."""
    model = build(kind, attn=attn)
    mask = torch.tensor([[True, True, False, True, True]])
    first, later = torch.tensor([[1, 1, 0, 2, 2]]), torch.tensor([[2, 2, 3]])
    context = Features(row(model.dim, 5, 1), mask)
    embeds = row(model.dim, 3, 1)
    whole = Visibility.documents(torch.cat([first, later], 1))
    once = model(embeds, context=context, attention=whole)
    assert whole.mask is not None
    cache = model.prefill(context, Visibility.documents(first))
    after = Visibility(mask=whole.mask[:, 5:], restart_positions=True)
    behind = model(embeds, context=cache, attention=after)
    second = torch.cat([context.tokens[:, 3:5], embeds[:, :2]], 1)
    for hidden in (once, behind):
        torch.testing.assert_close(hidden[:, :2], model(second)[:, 2:], **CLOSE)
        torch.testing.assert_close(hidden[:, 2:], model(embeds[:, 2:]), **CLOSE)


@pytest.mark.quick_share(3)
@pytest.mark.parametrize(("kind", "attn"), STACKS)
def test_facets_are_passes_of_their_own(kind: str, attn: str, build: Callable[..., Any]) -> None:
    model = build(kind, attn=attn)
    ids = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2]])
    shared, facets = row(model.dim, 3, 1), row(model.dim, 5, 1)
    whole = torch.cat([shared, facets], 1)
    together = model(whole, attention=Visibility.facets(ids))[:, 3:]
    context = Features.dense(shared)
    behind = model(facets, context=model.prefill(context), attention=Visibility.facets(ids[:, 3:]))
    for start, stop in ((0, 2), (2, 5)):
        alone = model(torch.cat([shared, facets[:, start:stop]], 1))[:, 3:]
        if kind not in SHORT:  # a window counts the positions of the other facets too
            torch.testing.assert_close(together[:, start:stop], alone, **CLOSE)
            torch.testing.assert_close(behind[:, start:stop], alone, **CLOSE)
    other = torch.cat([whole[:, :5], row(model.dim, 3, 1)], 1)
    changed = model(other, attention=Visibility.facets(ids))[:, 3:]
    assert torch.equal(changed[:, :2], together[:, :2])


@pytest.mark.parametrize(("kind", "attn"), STACKS)
def test_a_blocked_prefix_is_reached_through_special_tokens_alone(
    kind: str, attn: str, build: Callable[..., Any]
) -> None:
    model = build(kind, attn=attn)
    special = torch.tensor([[False, False, True, True, False, False]])
    embeds, visibility = row(model.dim, 6, 1).requires_grad_(), Visibility.bottleneck(special)

    def cut(tokens: Tensor, mask: Tensor) -> Tensor:
        return torch.where(special[..., None], tokens.detach(), tokens)

    plain = model(embeds, attention=visibility)
    hooked = model(embeds, attention=visibility, layer_hooks={0: cut, 1: cut})
    assert torch.equal(plain, hooked)
    assert depends(plain[0, -1], embeds).tolist() == [True, True, True, True, True, True]
    assert depends(hooked[0, -1], embeds).tolist() == [False, False, True, True, True, True]
    assert depends(plain[0, 3], embeds).tolist() == [True, True, False, True, False, False]


def test_a_bottleneck_has_a_segment_behind_each_group_of_special_tokens() -> None:
    special = torch.tensor([[0, 1, 0, 0, 1, 1, 0]]).bool()
    mask = Visibility.bottleneck(special).mask
    assert mask is not None
    seen = mask[0] & torch.ones(7, 7).tril().bool()
    seen.fill_diagonal_(True)
    rows = ["1000000", "1100000", "0110000", "0111000", "0011100", "0011010", "0100111"]
    assert ["".join(str(int(v)) for v in line) for line in seen] == rows
    none = Visibility.bottleneck(torch.zeros_like(special)).mask
    assert none is not None and bool(none.all())


@pytest.mark.parametrize(("kind", "attn"), STACKS)
def test_a_schedule_from_full_to_causal(kind: str, attn: str, build: Callable[..., Any]) -> None:
    model = build(kind, attn=attn)
    embeds = row(model.dim, 4)
    end = Visibility.full_to_causal(1.0)
    assert end is CAUSAL
    if kind in SHORT:
        return
    full = model(embeds, attention="bidirectional")
    torch.testing.assert_close(model(embeds, attention=Visibility.full_to_causal(0.0)), full)
    causal = model(embeds, attention=Visibility.full_to_causal(1 - 1e-15))
    torch.testing.assert_close(causal, model(embeds), **CLOSE)
    half = model(embeds, attention=Visibility.full_to_causal(0.5))
    assert not torch.allclose(half, full, atol=1e-3)
    assert not torch.allclose(half, causal, atol=1e-3)


def test_a_schedule_scales_the_attention_to_later_positions() -> None:
    real = torch.ones(1, 3, dtype=torch.bool)
    line = packed_positions(real, ~real)
    scores = torch.randn(3, 3)
    windows, schedule = Windows({"": None}, ()), Visibility.full_to_causal(0.75)
    bias = additive(schedule, line, line, windows, torch.float32)
    assert isinstance(bias, Tensor)
    scaled = scores.exp() * torch.where(torch.ones(3, 3).tril() > 0, 1.0, 0.25)
    expected = scaled / scaled.sum(1, keepdim=True)
    torch.testing.assert_close((scores + bias[0, 0]).softmax(1), expected)


@pytest.mark.quick_share(3)
@pytest.mark.parametrize(("kind", "attn"), [*STACKS, ("t5", "sdpa"), ("bart", "eager")])
def test_windows_by_layer(kind: str, attn: str, build: Callable[..., Any]) -> None:
    model = build(kind, attn=attn)
    embeds = row(model.dim, 8, 1).requires_grad_()
    context = Features.dense(row(model.dim, 2, 1)) if kind in PAIRS else None

    def reach(visibility: Visibility) -> list[bool]:
        hidden = model(embeds, context=context, attention=visibility)
        return depends(hidden[0, 6], embeds).tolist()

    last = [False, False, False, False, False, False, True, False]
    assert reach(CAUSAL.with_windows({0: 1, 1: 1})) == last
    near = [False, False, False, True, True, True, True, False]
    assert reach(CAUSAL.with_windows({0: 3, -1: 2})) == near
    assert reach(Visibility(window=2)) == [*[False] * 4, True, True, True, False]
    if kind not in SHORT:
        assert reach(CAUSAL.with_windows({1: 2})) == [True] * 7 + [False]


@pytest.mark.quick_share(9)
@pytest.mark.parametrize(("kind", "attn"), STACKS)
@torch.no_grad()
def test_generation_goes_on_from_the_last_document(
    kind: str, attn: str, build: Callable[..., Any], padded: Callable[..., Features]
) -> None:
    model = build(kind, attn=attn)
    context = padded([7, 5], model.dim, 8)
    ids = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 2, 2, 0, 0, 0]])
    options = {"max_new_tokens": 5, "eos_token_id": None}
    result = model.generate(context, Visibility.documents(ids), **options)
    beams = model.generate(context, Visibility.documents(ids), **options, num_beams=2)
    for r, stop in enumerate((7, 5)):
        alone = Features.dense(context.tokens[r : r + 1, 3:stop])
        assert torch.equal(model.generate(alone, **options)[0], result[r])
        assert torch.equal(model.generate(alone, **options, num_beams=2)[0], beams[r])


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3-short"])
@torch.no_grad()
def test_teacher_forcing_and_generation_see_the_same(
    kind: str, build: Callable[..., Any], padded: Callable[..., Features]
) -> None:
    """Behind a bottleneck in the context: generation is a loop over teacher forcing."""
    model = build(kind)
    context, ids = padded([6, 4], model.dim), torch.zeros(2, 0, dtype=torch.long)
    special = torch.tensor([[0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0]]).bool()
    result = model.generate(
        context, Visibility.bottleneck(special), max_new_tokens=4, eos_token_id=None
    )
    for step in range(4):
        known = torch.cat([ids, ids.new_zeros(2, 1)], 1)
        whole = torch.cat([special, torch.zeros_like(known).bool()], 1)
        visibility = Visibility.bottleneck(whole)
        hidden = model.teacher_force(context, known, known >= 0, visibility)
        ids = torch.cat([ids, model.logits(hidden[:, -1:]).argmax(-1)], 1)
        assert torch.equal(ids, result[:, : step + 1])
    free = model.generate(context, max_new_tokens=4, eos_token_id=None)
    assert not torch.equal(free, result)


@pytest.mark.parametrize("kind", PAIRS)
def test_the_decoder_of_a_pair(kind: str, build: Callable[..., Any]) -> None:
    """A mask is that of its self-attention, in forward and in teacher forcing."""
    model = build(kind, attn="eager" if kind in EAGER else "sdpa")
    context = Features.dense(row(model.dim, 4, 1))
    embeds = row(model.dim, 5, 1).requires_grad_()
    itself = torch.eye(5, dtype=torch.bool)[None]
    hidden = model(embeds, context=context, attention=Visibility(mask=itself))
    assert depends(hidden[0, 3], embeds).tolist() == [False, False, False, True, False]
    causal = Visibility(base="block", mask=torch.ones(1, 5, 5, dtype=torch.bool).tril())
    torch.testing.assert_close(
        model(embeds, context=context, attention=causal), model(embeds, context=context), **CLOSE
    )
    ids, special = torch.randint(3, 40, (1, 5)), torch.zeros(1, 5, dtype=torch.bool)
    forced = model.teacher_force(context, ids, ids > 0, Visibility.bottleneck(special))
    torch.testing.assert_close(forced, model.teacher_force(context, ids, ids > 0), **CLOSE)
    special[0, 1] = True
    forced = model.teacher_force(context, ids, ids > 0, Visibility.bottleneck(special))
    other = torch.cat([ids[:, :1] % 30 + 5, ids[:, 1:]], 1)
    changed = model.teacher_force(context, other, ids > 0, Visibility.bottleneck(special))
    assert [bool(d > 1e-6) for d in (changed - forced).abs().amax((0, 2))] == [
        False, True, True, True, True
    ]  # fmt: skip


@pytest.mark.parametrize("kind", PAIRS)
def test_the_encoder_of_a_pair(kind: str, build: Callable[..., Any]) -> None:
    model = build(kind, attn="eager" if kind in EAGER else "sdpa")
    embeds = row(model.dim, 5, 1).requires_grad_()
    same = torch.tensor([[1, 1, 2, 2, 2]])
    mask = same[:, :, None] == same[:, None]
    hidden = model(embeds, attention=Visibility(base="bidirectional", mask=mask))
    assert depends(hidden[0, 3], embeds).tolist() == [False, False, True, True, True]
