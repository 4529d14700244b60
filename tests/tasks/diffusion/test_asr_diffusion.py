"""Transcription by masked diffusion: canvases as decoding has them, priors, passes, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from sensorium.backbones.causal import Causal
from sensorium.backbones.diffusion import Diffusion
from sensorium.connectors.projectors import Linear
from sensorium.engine.utils import derive_seed
from sensorium.modalities.base import Features
from sensorium.modalities.text.characters import Characters
from sensorium.modalities.text.tokenizers import Bytes
from sensorium.tasks.batch import Batch
from sensorium.tasks.common import assemble
from sensorium.tasks.diffusion import DiffusionASR
from sensorium.tasks.diffusion.canvas import (
    Special,
    empty,
    make_initial_canvas,
    make_training_canvas,
)
from sensorium.tasks.diffusion.draft import Draft, DraftConfig, layout_draft
from sensorium.tasks.diffusion.noising import MIN_MASK_PROB
from sensorium.tasks.diffusion.sampler import Denoised
from sensorium.testing.context import StubContext, prepare_batch

DIM = 32
LETTERS = "abcd "
OPTIONS = {"hidden_size": DIM, "intermediate_size": 64, "num_hidden_layers": 2}
MASK, EOS, GAP = 90, 91, 92


class Spoken(nn.Module):
    """A letter is two frames of a vector of its own, then one of silence: what a CTC head wants."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.vectors = torch.randn(len(LETTERS) + 1, DIM, generator=generator)

    def forward(self, texts: Sequence[str]) -> Features:
        rows = [[LETTERS.index(c) for c in text for _ in range(2)] for text in texts]
        spaced = [[v for i in range(0, len(r), 2) for v in (*r[i : i + 2], -1)] for r in rows]
        return Features.pad([self.vectors[torch.tensor(r)] for r in spaced])


def make(**options: Any) -> DiffusionASR:
    spelling = Characters()
    task = DiffusionASR(
        prompt="<audio> say:",
        tokenizer=spelling,
        **{"canvas_length": 12, "length_margin": 4, **options},
    )
    spelling.fit([LETTERS])
    torch.manual_seed(0)
    task.heads["prior"] = Linear(DIM, task.head_uses["prior"].out_dim)
    return task


def meet(task: DiffusionASR) -> Diffusion:
    torch.manual_seed(0)
    backbone = Diffusion(tokenizer=Bytes(), name="tiny-llama", options=OPTIONS)
    task.build({}, {"backbone": backbone})
    return backbone


def batch_of(
    task: DiffusionASR, texts: Sequence[str], backbone: Diffusion
) -> tuple[Batch, StubContext]:
    batch = prepare_batch(task, [{"text": text} for text in texts], decoder=backbone)
    return batch, StubContext({"audio": Spoken()(texts)}, backbone)


def prior(ids: Sequence[int], sure: float = 1.0) -> Draft:
    return Draft("", list(ids), [sure] * len(ids), list(range(len(ids))))


LAYOUT = DraftConfig(min_confidence=0.9, length_factor=1.2, length_margin=4, min_length_ratio=0.5)
SPECIAL = Special(MASK, EOS, GAP)


@pytest.mark.parametrize("seed", range(5))
def test_without_priors_a_canvas_is_the_text_and_its_end(seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    truths = [[5, 6, 7], [8] * 9, []]
    built = make_training_canvas(truths, [None] * 3, LAYOUT, 16, SPECIAL, draws)
    for row, truth in enumerate(truths):
        size = int(built.real[row].sum())
        assert size > len(truth)
        assert built.target[row, :size].tolist() == [*truth, *[EOS] * (size - len(truth))]
        shown, hidden = built.ids[row, :size], built.hidden[row, :size]
        assert shown[hidden].eq(MASK).all()
        assert torch.equal(shown[~hidden], built.target[row, :size][~hidden])
        weights = built.weight[row]
        assert weights[~built.hidden[row]].eq(0).all()
        assert len(weights[weights > 0].unique()) <= 1
        assert weights.max() <= 1 / (MIN_MASK_PROB * size) + 1e-6


def test_with_a_prior_training_sees_what_decoding_begins_with() -> None:
    """Its sure words stand where decoding has them; nothing else is given."""
    ids = [10, 11, 12, 13, 14]
    result = Draft("", ids, [1.0, 1.0, 0.2, 1.0, 1.0], [0, 1, 2, 3, 4])
    truth = [10, 20, 12, 13, 14]
    start = make_initial_canvas([layout_draft(result, LAYOUT)], SPECIAL)
    wrong_shown = 0
    for seed in range(20):
        draws = torch.Generator().manual_seed(seed)
        built = make_training_canvas([truth], [result], LAYOUT, 16, SPECIAL, draws)
        assert built.ids.shape == start.ids.shape and torch.equal(built.real, start.real)
        drafted = start.drafted[0]
        assert built.hidden[0][drafted].sum() <= 1  # the wrong one, where verification took it back
        right = built.ids[0] == built.target[0]
        wrong = drafted & ~right & ~built.hidden[0]
        wrong_shown += int(wrong.sum())
        assert built.weight[0][wrong].gt(0).all()  # a loss on visible wrong tokens
        sure = drafted & (start.ids[0] == built.target[0])
        assert torch.equal(built.ids[0][sure], start.ids[0][sure]) and int(sure.sum()) == 3
    assert 0 < wrong_shown < 20


def test_a_canvas_without_a_prior_is_all_masks() -> None:
    start = make_initial_canvas([empty(5), layout_draft(prior([7, 8]), LAYOUT)], SPECIAL)
    assert start.ids[0].tolist() == [MASK] * 5 + [EOS] * 2
    assert start.open[0].tolist() == [True] * 5 + [False] * 2
    assert start.drafted.sum(1).tolist() == [0, 2] and start.real.sum(1).tolist() == [5, 7]


@pytest.mark.parametrize(("share", "rows"), [(0.0, 0), (1 / 3, 4), (1.0, 12)])
def test_a_share_of_the_rows_learns_from_priors(share: float, rows: int) -> None:
    task = make(draft_prob=share)
    backbone = meet(task)
    for step in (0, 1, 7):
        context = StubContext({}).at(step, 0.0)
        drafts = task._drafts(Spoken()(["ab"] * 12), backbone, context)
        assert sum(draft is not None for draft in drafts) == rows


def test_the_loss_is_finite_and_trains_everything() -> None:
    task = make()
    backbone = meet(task)
    batch, encode = batch_of(task, ["abc d", "dd", "a"], backbone)
    encode.features["audio"].tokens.requires_grad_()
    loss = task.loss(batch, encode.on(backbone))
    assert int(loss.count) == 3 and loss.total.isfinite()
    total = loss.parts["denoise"] + loss.parts["correct"] + task.ctc_weight * loss.parts["ctc"]
    torch.testing.assert_close(total, loss.total.detach())
    loss.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())
    assert backbone.new_rows["input"].grad is not None
    again = task.loss(batch, encode.on(backbone))
    assert torch.equal(again.total, loss.total)  # a resumed step is the same step
    later = encode.on(backbone)
    later.generator.manual_seed(1)
    assert not torch.equal(task.loss(batch, later).total, loss.total)


def test_a_prior_that_is_frozen_has_no_loss_of_its_own() -> None:
    task = make()
    backbone = meet(task)
    task.heads["prior"].requires_grad_(False)
    batch, encode = batch_of(task, ["ab", "cd"], backbone)
    assert float(task.loss(batch, encode.on(backbone)).parts["ctc"]) == 0


def test_a_text_that_has_too_few_frames_is_named() -> None:
    task = make()
    backbone = meet(task)
    _, encode = batch_of(task, ["ab", "cd"], backbone)
    batch, _ = batch_of(task, ["ab", "dddd dddd"], backbone)
    result = task.loss(batch, encode.on(backbone))
    assert [key for key, _ in result.failed] == ["1"] and "needs 15 (9 tokens" in result.failed[0][
        1
    ]
    assert result.total.isfinite()


def test_the_context_is_read_once_and_a_pass_costs_the_canvas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = make(threshold=1.1).eval()
    backbone = meet(task).eval()
    calls: list[str] = []
    for name in ("prefill", "forward"):
        real = getattr(backbone, name)

        def counted(*args: Any, _real: Any = real, _name: str = name, **kwargs: Any) -> Any:
            calls.append(_name)
            return _real(*args, **kwargs)

        monkeypatch.setattr(backbone, name, counted)
    batch, encode = batch_of(task, ["ab"], backbone)
    result = task.predict(batch, encode.on(backbone), prior=False)
    assert calls == ["prefill"] + ["forward"] * result[0]["passes"]
    calls.clear()
    assert task.predict(batch, encode.on(backbone), prior=False, steps=3)[0]["passes"] <= 3


def test_a_decided_row_takes_part_in_no_further_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make(threshold=1.1).eval()
    backbone = meet(task).eval()
    rows: list[int] = []
    real = backbone.forward

    def counted(embeds: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        rows.append(len(embeds))
        return real(embeds, *args, **kwargs)

    monkeypatch.setattr(backbone, "forward", counted)
    batch, encode = batch_of(task, ["ab", "abcab", "b"], backbone)
    result = task.predict(batch, encode.on(backbone), prior=True)
    assert sum(rows) == sum(row["passes"] for row in result)


def test_rows_in_a_batch_say_what_they_say_alone() -> None:
    task, texts = make(threshold=0.02).eval(), ["abcd", "b", "d c b a"]
    backbone = meet(task).eval()
    whole = task.predict(*batch_of(task, texts, backbone))
    for text, result in zip(texts, whole, strict=True):
        assert task.predict(*batch_of(task, [text], backbone)) == [result]
        assert set(result) == {"text", "passes", "prior"}


def test_the_gap_is_no_text() -> None:
    task = make()
    backbone = meet(task)
    ids = [*Bytes().encode("a"), task.special.gap_id, *Bytes().encode("b")]
    assert task.texts(Denoised([ids], [1], [3]), backbone) == ["ab"]
    assert task.special.gap_id >= Bytes.size


def test_a_decoder_from_left_to_right_is_refused() -> None:
    backbone = Causal(tokenizer=Bytes(), name="tiny-llama", options=OPTIONS)
    with pytest.raises(ValueError, match=r"use `type: diffusion` in backbone"):
        make().build({}, {"backbone": backbone})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"length_factor": 0.5}, "length_factor: found 0.5, expected at least 1"),
        ({"prompt": "nothing"}, "names no stream"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DiffusionASR(**{"prompt": "<audio>", "tokenizer": Characters(), **options})


def learned(task: DiffusionASR, texts: Sequence[str], steps: int) -> Diffusion:
    backbone = meet(task)
    parameters = [*task.parameters(), *backbone.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    batch, encode = batch_of(task, texts, backbone)
    for step in range(steps):
        context = encode.at(step, step / steps)
        context.generator.manual_seed(derive_seed(0, step))
        loss = task.loss(batch, context)
        (loss.total / loss.count).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    task.eval()
    backbone.eval()
    return backbone


@pytest.mark.slow
def test_it_learns_to_spell_and_to_correct_a_wrong_prior() -> None:
    texts = ["abcd", "bad", "a cab", "dad", "cd ab", "b", "add a", "cab bad"]
    task = make()
    backbone = learned(task, texts, 500)
    batch, encode = batch_of(task, texts, backbone)
    for first in (True, False):
        result = task.predict(batch, encode.on(backbone), prior=first)
        # Six to eight over three seeds and 500 or 800 steps; an untrained decoder has none.
        assert sum(row["text"] == text for row, text in zip(result, texts, strict=True)) >= 5
        assert max(row["passes"] for row in result) < 8
    memory = backbone.prefill(assemble(task.prompt.streams, batch, encode), "block")
    wrong: list[Draft | None] = []
    for text in texts:
        ids = backbone.tokenizer.encode(text)
        ids[0] = backbone.tokenizer.encode("d" if text[0] != "d" else "a")[0]
        wrong.append(prior(ids))
    corrected = task.texts(task.decode(memory, wrong, backbone), backbone)
    right = sum(a == b for a, b in zip(corrected, texts, strict=True))
    assert right >= len(texts) // 2  # none of the priors was
