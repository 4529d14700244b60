"""Regions and frames in front of a text: their losses, and what shows that they are read."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from sensorium.modalities.base import Features, Loss
from sensorium.tasks.language.masked import MaskedLM
from sensorium.tasks.language.masked.docking import region_features
from sensorium.testing.context import StubContext
from sensorium.tests.tasks.language.tiny import encoder_of, text_batch

WORDS = ["red", "blue", "green", "pink"]
BOXES = [[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]


def task_of(*sections: dict[str, Any], **options: Any) -> MaskedLM:
    task = MaskedLM(pretext=list(sections), **options)
    torch.manual_seed(1)
    task.build({"text": 16, "text.encoder": 16}, {})
    return task


def learn(task: Any, encoder: Any, batches: Any, steps: int, lr: float = 1e-2) -> None:
    """batches: step -> (batch, context)."""
    optimizer = torch.optim.AdamW([*encoder.parameters(), *task.parameters()], lr=lr)
    for step in range(steps):
        batch, context = batches(step)
        context.generator.manual_seed(step)
        loss = task.loss(batch, context)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()


def test_the_features_of_a_box_are_those_inside_it() -> None:
    tokens = torch.arange(16.0).view(1, 16, 1)
    features = Features(tokens, torch.ones(1, 16, dtype=torch.bool), grid=(4, 4))
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 1.0, 0.25], [0.125, 0.0, 0.5, 0.25]]])
    pooled = region_features(features, boxes)[0, :, 0]
    mixed = (0.5 * 0 + 1.0 * 1) / 1.5
    torch.testing.assert_close(pooled, torch.tensor([7.5, 2.5, mixed]))
    with pytest.raises(ValueError, match="regions: the encoder's tokens have the grid None"):
        region_features(features.replace(grid=None), boxes)


COLOURS = torch.randn(len(WORDS), 16, generator=torch.Generator().manual_seed(3))


def pictures(words: list[tuple[str, str]]) -> Features:
    """Grids of two by two: the first word at the top on the left, the second across from it."""
    tokens = torch.zeros(len(words), 4, 16)
    for row, pair in enumerate(words):
        for place, word in zip((0, 3), pair, strict=True):
            tokens[row, place] = COLOURS[WORDS.index(word)]
    return Features(tokens, torch.ones(len(words), 4, dtype=torch.bool), grid=(2, 2))


PAIRS = [(a, b) for a in WORDS for b in WORDS if a != b]
REGIONS: dict[str, Any] = {"before": ["image"], "regions": {"image": "boxes"}}


def regions_of(task: MaskedLM, encoder: Any, texts: list[tuple[str, str]]) -> Any:
    """Pictures of `PAIRS` with texts."""
    rows = [{"boxes": BOXES, "objects": list(pair)} for pair in PAIRS]
    context = StubContext({"image": pictures(PAIRS)})
    context = context.reading("text", encoder, [f"{a} {b}" for a, b in texts])
    return text_batch(task, rows, encoder), context


def test_boxes_are_part_of_what_is_read() -> None:
    encoder = encoder_of()
    task = task_of({"type": "matching"}, {"type": "objects", "classes": WORDS}, **REGIONS)
    assert {"boxes", "objects"} <= set(task.columns())
    batch, context = regions_of(task, encoder, PAIRS)
    docked = task.docking.dock(batch, context)
    assert docked is not None and docked.mask.shape == (12, 2)
    moved = [{"boxes": [[0.1, 0.1, 0.4, 0.4], BOXES[1]], "objects": list(p)} for p in PAIRS]
    other = task.docking.dock(text_batch(task, moved, encoder), context)
    assert other is not None
    assert not torch.allclose(docked.embeds[:, 0], other.embeds[:, 0], atol=1e-3)
    torch.testing.assert_close(docked.embeds[:, 1], other.embeds[:, 1])
    hidden = docked.hiding(torch.ones_like(docked.mask))
    assert torch.equal(hidden.embeds, docked.places), "a hidden region keeps its box"


@pytest.mark.slow
def test_a_swapped_caption_scores_lower_and_hidden_objects_are_known() -> None:
    """Unicoder-VL; the control learned from captions that were drawn anew for each step."""
    results = {}
    draws = random.Random(0)
    for name in ("right", "control"):
        encoder = encoder_of()
        objects = {"type": "objects", "classes": WORDS, "prob": 0.5}
        task = task_of({"type": "matching"}, objects, mask_prob=0.15, **REGIONS)

        def batches(_: int, task: Any = task, encoder: Any = encoder, name: str = name) -> Any:
            shown = PAIRS if name == "right" else draws.sample(PAIRS, len(PAIRS))
            return regions_of(task, encoder, shown)

        learn(task, encoder, batches, 100)
        part: Any = task.pretext["matching"]
        scores = []
        for shown in (PAIRS, PAIRS[1:] + PAIRS[:1]):
            batch, context = regions_of(task, encoder, shown)
            encoded = task.encode(batch, context, torch.Generator().manual_seed(0))
            with torch.no_grad():
                scores.append(float(part.score(encoded, encoded.docked).mean()))
                if shown is PAIRS:
                    losses: Any = task.pretext["objects"]
                    objects_loss = float(losses.losses(encoded).mean())
        results[name] = scores[0] - scores[1], objects_loss
    assert results["right"][0] > 1.0 and results["control"][0] < results["right"][0] / 2, results
    assert results["right"][1] < 0.8 * torch.tensor(4.0).log(), results


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0.1, 0.2, 0.3]], "boxes: found .*, expected a list of"),
        ([[0.5, 0.0, 0.2, 1.0]], "boxes: found .*, expected fractions of the picture"),
        ([[0.0, 0.0, 20.0, 30.0]], "boxes: found .*, expected fractions of the picture"),
    ],
)
def test_a_box_that_is_none_is_refused(boxes: Any, message: str) -> None:
    task = task_of({"type": "matching"}, **REGIONS)
    with pytest.raises(ValueError, match=message) as error:
        text_batch(task, [{"boxes": boxes}], encoder_of())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regions": {"image": "boxes"}}, "regions: names 'image', which before does not"),
        ({"before": ["image"], "items": ["image"]}, "items: names 'image', which before names"),
        ({"pretext": [{"type": "ctc"}]}, "pretext: ctc reads what stands before the text; add"),
        ({"pretext": [{"type": "matching"}]}, "pretext: matching reads what stands before"),
        (
            {"pretext": [{"type": "objects", "classes": ["a"]}], "before": ["image"]},
            "pretext.0.classes: found a, expected two different or more",
        ),
        (
            {"pretext": [{"type": "hierarchy", "column": "c", "paths": ["a"]}]},
            "pretext.0.paths: found a, expected two different or more",
        ),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        MaskedLM(**options)
    assert "\n" not in str(error.value)


LETTERS = torch.randn(256, 16, generator=torch.Generator().manual_seed(4))
SPOKEN = ["ab", "cd", "ef", "gh", "da", "fc", "he", "bg"]


def frames(texts: list[str]) -> Features:
    """Three frames a letter, a vector of its own each."""
    tokens = torch.stack([LETTERS[[ord(c) for c in text for _ in range(3)]] for text in texts])
    return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))


def test_the_loss_of_frames_is_ctc_of_the_text() -> None:
    encoder = encoder_of()
    task = task_of({"type": "ctc"}, before=["audio"])
    context = StubContext({"audio": frames(SPOKEN)}).reading("text", encoder, SPOKEN)
    batch = text_batch(task, [{} for _ in SPOKEN], encoder)
    encoded = task.encode(batch, context, torch.Generator().manual_seed(0))
    part: Any = task.pretext["ctc"]
    mask = torch.ones(len(SPOKEN), 6, dtype=torch.bool)
    ids = torch.ones(len(SPOKEN), 6, dtype=torch.long)
    states = encoder(ids=ids, mask=mask, inputs_embeds=frames(SPOKEN).tokens).tokens
    expected = F.ctc_loss(
        encoder.logits(states).log_softmax(-1).transpose(0, 1),
        encoded.text.ids[:, 1:-1],
        torch.full((8,), 6),
        torch.full((8,), 2),
        blank=encoder.processor.tokenizer.pad_id,
        reduction="none",
    )
    torch.testing.assert_close(part.losses(encoded).values, expected / 2, atol=1e-4, rtol=1e-4)


class Both(torch.nn.ModuleList):
    """Masked text without its sound, and the terms of the sound."""

    def loss(self, batch: Any, context: Any) -> Loss:
        losses = [task.loss(batch, context) for task in self]  # type: ignore[operator]
        return Loss(sum(loss.total / loss.count for loss in losses), 1)


@pytest.mark.slow
def test_sounds_find_their_texts_once_the_ctc_term_is_on() -> None:
    """mSLAM: one encoder learns masked text, masked frames, and of pairs the CTC of the text; the
    rank of a sound's own text among all falls, with the term and not without."""
    accuracy = {}
    for weight in (1.0, 0.0):
        encoder = encoder_of()
        terms = {"type": "ctc", "weight": weight}, {"type": "frames", "weight": 0.1}
        speech = task_of(*terms, before=["audio"], mask_prob=0.0, weight=0.0)
        task = Both([task_of(), speech])
        batch = text_batch(speech, [{} for _ in SPOKEN], encoder)
        spoken = frames(SPOKEN)
        context = StubContext({"audio": spoken}).reading("text", encoder, SPOKEN)
        learn(task, encoder, lambda _, b=batch, c=context: (b, c), 100)
        with torch.no_grad():
            ids = torch.ones(spoken.mask.shape, dtype=torch.long)
            heard = encoder(ids=ids, mask=spoken.mask, inputs_embeds=spoken.tokens).tokens
            read = encoder(**context.samples["text"]).tokens[:, 1:-1]
            written = encoder.logits(read).log_softmax(-1).exp().mean(1)
            spelt = encoder.logits(heard).log_softmax(-1).exp()[..., 4:].mean(1)
            similar = F.normalize(spelt, dim=-1) @ F.normalize(written[..., 4:], dim=-1).T
            right = torch.arange(8)
            accuracy[weight] = float((similar.argmax(1) == right).float().mean())
    assert accuracy[1.0] >= accuracy[0.0] + 0.25, accuracy
