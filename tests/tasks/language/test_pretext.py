"""Disposable decoders: what they may see, what they make the encoder's vector hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from sensorium.backbones.encoder import BackboneEncoder
from sensorium.modalities.base import Features
from sensorium.tasks.language.masked import MaskedLM
from sensorium.tasks.language.masked.pretext import (
    PRETEXTS,
    Encoded,
    Pretext,
    bag_of_words,
    effective_rank,
)
from sensorium.testing.context import StubContext, prepare_batch
from sensorium.tests.tasks.language.tiny import (
    GPT2,
    TEXTS,
    backbone_of,
    built,
    encoder_of,
    text_batch,
)

KEYS = ["red circle", "blue squares", "мир", "x", "문장"]
ROWS: list[dict[str, Any]] = [
    {
        "text": text,
        "facts": text[::-1],
        "ruling": text.upper(),
        "keys": key,
        "objects": ["sun"],
        "path": "news/sport" if number < 3 else "news/world",
        "triples": [{"head": key, "relation": "is a", "tail": "thing"}],
    }
    for number, (text, key) in enumerate(zip(TEXTS, KEYS, strict=True))
]
IMAGE = Features.dense(torch.randn(len(TEXTS), 1, 16, generator=torch.Generator().manual_seed(2)))
DOCKED = {"ctc", "frames", "matching", "objects"}
"""Terms that read what stands before the text."""
SECTIONS = {"type": "sections", "columns": {"facts": 0.6, "ruling": 0.4}}
OPTIONS: dict[str, dict[str, Any]] = {
    "bow": {},
    "condenser": {"early": 0},
    "ctc": {},
    "frames": {},
    "hierarchy": {"column": "path", "paths": ["news/sport", "news/world"]},
    "infilling": {"column": "keys"},
    "matching": {},
    "misspelt": {},
    "objects": {"classes": ["sun", "moon"]},
    "replaced_phrases": {"column": "keys"},
    "triples": {},
    "triplet": {"column": "path"},
    "decoder": {"feed": "embeddings"},
    "enhanced": {},
    "future": {"tokens": 2},
    "sections": {"columns": {"facts": 0.6}},
    "visible": {},
    "weak": {},
}
"""Options of each decoder, without its defaults."""


def task_of(*sections: dict[str, Any], **options: Any) -> MaskedLM:
    task = MaskedLM(pretext=list(sections), **options)
    torch.manual_seed(1)
    task.build({"text": 16, "text.encoder": 16}, {})
    return task


def encoded_of(task: MaskedLM, encoder: Any, rows: Any = None) -> Encoded:
    batch = text_batch(task, rows or ROWS, encoder)
    context = StubContext({}).reading("text", encoder, TEXTS[: len(batch)])
    return task.encode(batch, context, torch.Generator().manual_seed(0))


def loss_of(part: Pretext, encoded: Encoded) -> torch.Tensor:
    """The mean loss of a decoder, its draws from the start."""
    return part.losses(replace(encoded, generator=torch.Generator().manual_seed(5))).mean()


def causal_encoder() -> Any:
    return BackboneEncoder(backbone=backbone_of("causal", GPT2), max_length=60).eval()


@pytest.mark.quick_share(2)
@pytest.mark.parametrize("name", PRETEXTS)
def test_the_encoder_is_the_same_with_and_without_a_decoder(name: str) -> None:
    """Its tensors have the same names, and its states of a text are those without the task."""
    encoder = causal_encoder() if name == "future" else encoder_of()
    names, ids = set(encoder.state_dict()), torch.tensor([[1, 50, 60, 2]])
    before = encoder(ids=ids, mask=ids > 0).tokens
    docked = ["image"] if name in DOCKED else []
    task = task_of({"type": name, **OPTIONS[name]}, before=docked)
    batch = text_batch(task, ROWS, encoder)
    loss = task.loss(batch, StubContext({"image": IMAGE}).reading("text", encoder, TEXTS))
    loss.total.backward()
    assert set(encoder.state_dict()) == names
    assert torch.equal(encoder(ids=ids, mask=ids > 0).tokens, before)
    assert all(p.grad is not None for p in task.parameters()), "a part of the decoder is unused"


@pytest.mark.quick_share(4)
@pytest.mark.parametrize("name", PRETEXTS)
def test_a_zero_weight_removes_exactly_its_term(name: str) -> None:
    encoder = causal_encoder() if name == "future" else encoder_of()
    options = {"type": name, **OPTIONS[name]}
    if name == "visible":
        return  # it also decides what the encoder reads
    losses = []
    docked = ["image"] if name in DOCKED else []
    for sections in ([{**options, "weight": 1.0}], [{**options, "weight": 0.0}], []):
        task = task_of(*sections, before=docked)
        context = StubContext({"image": IMAGE}).reading("text", encoder, TEXTS)
        losses.append(task.loss(text_batch(task, ROWS, encoder), context))
    alone = losses[2]
    torch.testing.assert_close(losses[1].total, alone.total)
    with_term = alone.total + losses[0].parts[f"{name}_loss"]
    torch.testing.assert_close(losses[0].total, with_term)


@pytest.mark.parametrize("window", [0, 2])
def test_a_window_of_none_ignores_the_order_of_what_stands_before(window: int) -> None:
    encoder = encoder_of()
    part: Any = task_of({"type": "weak", "window": window}).pretext["weak"]
    vector, ids = torch.randn(1, 16), torch.tensor([[1, 9, 8, 7, 6, 2]])
    encoded = encoded_of(task_of(), encoder)
    text = replace(encoded.text, ids=ids, mask=ids > 0, special=ids < 4)
    other = replace(text, ids=torch.tensor([[1, 7, 9, 8, 6, 2]]))
    states = [
        part.decoder(encoder, vector, t.ids, part.visible(replace(encoded, text=t)))[:, 4]
        for t in (text, other)
    ]
    assert torch.equal(*states) == (window == 0)


def test_no_position_of_an_enhanced_decoder_sees_its_own_token() -> None:
    encoder = encoder_of()
    task = task_of({"type": "enhanced", "visible": 1.0}, {"type": "enhanced", "visible": 0.4})
    encoded = encoded_of(task, encoder)
    first: Any = task.pretext["enhanced"]
    second: Any = task.pretext["enhanced2"]
    seen = second.visible(encoded)
    assert not seen.diagonal(dim1=1, dim2=2).any()
    assert len({tuple(row.tolist()) for row in seen[0]}) > 5, "positions have sets of their own"
    for place in (1, 3):
        changed = encoded.text.ids.clone()
        changed[:, place] += 1
        states = [
            first.decoder(encoder, encoded.vector, ids, first.visible(encoded))
            for ids in (encoded.text.ids, changed)
        ]
        moved = (states[0] - states[1]).abs().sum(-1) > 0
        assert not moved[:, place].any() and moved[:, 2].all()


def test_a_condenser_reads_late_and_early_states() -> None:
    encoder = encoder_of()
    task = task_of({"type": "condenser", "early": 0}, {"type": "condenser", "early": 1})
    assert task.layers == (0, 1)
    part: Any = task_of({"type": "condenser", "early": 0}).pretext["condenser"]
    encoded = encoded_of(task_of({"type": "condenser", "early": 0}), encoder)
    states, keys = part.inputs(encoded)
    assert keys is None
    assert torch.equal(states[:, 0], encoded.features.tokens[:, 0])
    assert torch.equal(states[:, 1:], encoded.features.hidden_states[0].tokens[:, 1:])
    last: Any = task_of({"type": "condenser", "early": -1})
    encoded = encoded_of(last, encoder)
    assert torch.equal(last.pretext["condenser"].inputs(encoded)[0], encoded.features.tokens)


def test_mask_tokens_stay_out_of_the_encoder() -> None:
    """The states of the others are those of the text without the masked tokens, at their own
    positions."""
    encoder = encoder_of()
    encoded = encoded_of(task_of({"type": "visible"}, mask_prob=0.4, random_prob=0.0), encoder)
    row = 1
    stays = (encoded.text.mask & ~encoded.chosen)[row]
    ids, places = encoded.text.ids[row, stays][None], stays.nonzero()[:, 0][None]
    assert encoder.processor.tokenizer.mask_id not in ids
    expected = encoder.encoder(input_ids=ids, position_ids=places).last_hidden_state[0]
    torch.testing.assert_close(encoded.features.tokens[row, stays], expected, atol=1e-5, rtol=1e-5)
    plain = encoded_of(task_of(mask_prob=0.4, random_prob=0.0), encoder)
    assert not torch.allclose(plain.features.tokens[row, stays], expected, atol=1e-3)


def test_the_effective_rank_counts_directions() -> None:
    assert effective_rank(torch.randn(50, 2) @ torch.randn(2, 16)) <= 2
    assert effective_rank(torch.eye(16)) >= 13


def test_a_bag_of_words_is_least_at_the_frequencies() -> None:
    encoder = encoder_of()
    task = task_of({"type": "bow"}, mask_prob=0.0)
    encoded = encoded_of(task, encoder)
    counts = torch.zeros(len(TEXTS), 260)
    for row, text in enumerate(TEXTS):
        for byte in text.encode():
            counts[row, byte + 4] += 1
    shares = counts / counts.sum(1, keepdim=True)

    class Perfect:
        def logits(self, hidden: torch.Tensor) -> torch.Tensor:
            return (shares + 1e-9).log()[:, None].expand(-1, hidden.shape[1], -1)

    part: Any = task.pretext["bow"]
    perfect: Any = Perfect()
    least = part.losses(replace(encoded, encoder=perfect)).values
    entropy = -(shares * (shares + 1e-9).log()).sum(1)
    torch.testing.assert_close(least, entropy, atol=1e-4, rtol=1e-4)
    assert (part.losses(encoded).values > least).all()
    hidden = torch.randn(1, 3, 4)
    ordinary = torch.tensor([[False, True, True]])
    assert torch.equal(bag_of_words(hidden, ordinary), hidden[:, 1:].amax(1))


@pytest.mark.parametrize("decay", [0.1, 1.0])
def test_one_future_token_without_a_decoder_is_the_next_token(decay: float) -> None:
    encoder = causal_encoder()
    future = {"type": "future", "tokens": 1, "layers": 0, "decay": decay}
    task = task_of(future, mask_prob=0.0)
    encoded = encoded_of(task, encoder)
    part: Any = task.pretext["future"]
    ids = encoded.text.ids
    logits = encoder.logits(encoder(ids=ids, mask=encoded.text.mask).tokens)[:, :-1]
    labels = ids[:, 1:].masked_fill(~encoded.text.mask[:, 1:], -100)
    expected = F.cross_entropy(logits.transpose(1, 2), labels)
    torch.testing.assert_close(part.losses(encoded).mean(), expected)
    assert -1 <= float(part.measures(encoded)["smoothness"].mean()) <= 1
    language = built(encoder.backbone, "causal")
    rows = [{"text": text} for text in TEXTS]
    loss = language.loss(
        prepare_batch(language, rows, decoder=encoder.backbone),
        StubContext({}).on(encoder.backbone),
    )
    torch.testing.assert_close(loss.total / loss.count, expected)


def test_farther_tokens_count_less_and_an_encoder_that_sees_them_is_refused() -> None:
    encoder = causal_encoder()
    task = task_of({"type": "future", "tokens": 3, "decay": 0.5}, mask_prob=0.0)
    part: Any = task.pretext["future"]
    losses = part.losses(encoded_of(task, encoder))
    lengths = [len(text.encode()) + 2 for text in TEXTS]
    assert len(losses.values) == sum(max(0, n - k) for n in lengths for k in (1, 2, 3))
    with pytest.raises(ValueError, match="future predicts tokens that the encoder sees") as error:
        loss_of(part, encoded_of(task, encoder_of()))
    assert "\n" not in str(error.value)


def test_a_missing_section_is_skipped() -> None:
    encoder = encoder_of()
    task = task_of(SECTIONS, mask_prob=0.0)
    part: Any = task.pretext["sections"]
    assert set(part.decoders) == {"facts", "ruling"}
    rows = [{"facts": "seven words", "ruling": None}, {"facts": None, "ruling": ""}]
    assert set(part.losses(encoded_of(task, encoder, rows)).rows.tolist()) == {0}
    assert list(task.nullable()) == ["facts", "ruling"]
    nothing = part.losses(encoded_of(task, encoder, [{"facts": None, "ruling": ""}] * 2))
    assert len(nothing.values) == 0 and float(nothing.mean()) == 0
