"""Signal tokens as targets: the loss, the grammar, guidance, what is learned, and its controls."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from sensorium.backbones.base import Backbone
from sensorium.modalities.base import Features
from sensorium.modalities.image.tokenizers import PatchVQ
from sensorium.tasks.batch import Batch
from sensorium.tasks.language.signals import SignalGeneration
from sensorium.testing.context import StubContext, prepare_batch
from sensorium.testing.task_builder import Letters
from sensorium.tests.tasks.language.tiny import GPT2, backbone_of

ROWS = [{"caption": "red"}, {"caption": "blue"}]


def codes_of(rows: list[list[int]]) -> Features:
    longest = max(map(len, rows))
    codes = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    mask = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
    return Features(torch.zeros(*codes.shape, 1), mask, codes=codes)


def made(tokenizer: Any, **options: Any) -> tuple[SignalGeneration, Backbone]:
    backbone = backbone_of("causal", GPT2)
    task = SignalGeneration(target="<signal>", **options)
    task.signal_tokenizers = {"signal": tokenizer}
    task.build({}, {"backbone": backbone})
    return task, backbone


def trained(
    task: SignalGeneration, backbone: Backbone, batch: Batch, context: StubContext, steps: int
) -> None:
    parameters = [p for p in backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = task.loss(batch, context)
        (loss.total / loss.count).backward()
        optimizer.step()


GRIDS = [torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.tensor([[7, 7]])]


@pytest.fixture(scope="module")
def drawn() -> tuple[SignalGeneration, Backbone, Batch, StubContext]:
    """A decoder that learned which picture belongs to which caption."""
    vq = PatchVQ(codes=8, patch=2, max_side=4)
    task, backbone = made(vq, prompt="{caption}", max_new_tokens=20, condition_dropout=0.3)
    ids = [vq.layout.serialize(grid) for grid in GRIDS]
    batch = prepare_batch(task, ROWS, decoder=backbone)
    batch.streams["signal"] = {}
    context = StubContext({"signal": codes_of([row.tolist() for row in ids])}).on(backbone)
    vq.decode = lambda rows: [vq.layout.parse(row) for row in rows]  # type: ignore[method-assign]
    trained(task, backbone, batch, context, 120)
    return task, backbone, batch, context


@pytest.mark.slow
def test_the_picture_of_a_caption_is_written_whole(drawn: Any) -> None:
    """And with the captions swapped the other one: the tokens follow the prompt."""
    task, _, batch, context = drawn
    rows = task.predict(batch, context)
    layout = task.spans[0].tokenizer.layout
    for row, grid in zip(rows, GRIDS, strict=True):
        assert torch.equal(layout.parse(row["signals"]["signal"]["tokens"]), grid)
        assert "problem" not in row["signals"]["signal"]
    swapped = task.predict(batch.select([1, 0]), context.rows(0, 2))
    assert [r["signals"] for r in swapped] == [r["signals"] for r in rows][::-1]
    metrics = task.metrics()
    metrics.update(rows, [{}, {}])
    scores = metrics.compute()
    assert scores["valid"] == 1 and scores["token_accuracy"] > 0.9


def test_an_untrained_decoder_writes_pictures_too() -> None:
    """The grammar alone: ids of codes between the markers, as many as the markers say."""
    vq = PatchVQ(codes=8, patch=2, max_side=3)
    task, backbone = made(vq, prompt="{caption}", max_new_tokens=20)
    batch = prepare_batch(task, ROWS, decoder=backbone)
    for seed in range(3):
        torch.manual_seed(seed)
        rows = task.predict(batch, StubContext({}).on(backbone), do_sample=True)
        for row in rows:
            vq.layout.parse(row["signals"]["signal"]["tokens"])


@pytest.mark.slow
def test_guidance_of_one_is_none_and_others_follow_the_formula(drawn: Any) -> None:
    task, backbone, batch, context = drawn
    plain = task.predict(batch, context)
    assert task.predict(batch, context, guidance=1.0) == plain
    near = task.predict(batch, context, guidance=1.0 + 1e-9)  # through both contexts
    assert [r["signals"] for r in near] == [r["signals"] for r in plain]
    # A first free token by hand, among the heights: u + g (c - u).
    span, layout = task.spans[0], task.spans[0].tokenizer.layout
    start = torch.tensor([[span.first + layout.start]])
    prompts = [batch.labels["prompt.0"][:1, : int(batch.label_masks["prompt.0"][0].sum())]]
    prompts.append(torch.tensor([[backbone.tokenizer.bos_id]]))
    c, u = (
        backbone.logits(backbone(backbone.embed(torch.cat([p, start], 1))))[0, -1].log_softmax(-1)
        for p in prompts
    )
    heights = slice(span.first + layout.end + 1, span.first + layout.size)
    for scale in (0.05, 3.0, 8.0):
        expected = int((u + scale * (c - u))[heights].argmax()) + layout.end + 1
        row = task.predict(batch.select([0]), context.rows(0, 1), guidance=scale)[0]
        assert row["signals"]["signal"]["tokens"][1] == expected
    with pytest.raises(ValueError, match="top_p: has no effect with guidance"):
        task.predict(batch, context, guidance=2.0, do_sample=True, top_p=0.5)


def test_the_loss_is_the_library_s_and_z_is_added() -> None:
    task, backbone = made(Letters(), prompt="{caption}")
    batch = prepare_batch(task, ROWS, decoder=backbone)
    context = StubContext({"signal": codes_of([[0, 1, 2], [3]])}).on(backbone)
    total, count = 0.0, 0
    denominators = []
    for row, codes in enumerate(([0, 1, 2], [3])):
        prompt = batch.labels["prompt.0"][row][batch.label_masks["prompt.0"][row]]
        ids = torch.tensor([*(c + task.spans[0].first for c in codes), backbone.tokenizer.eos_id])
        hidden = backbone(backbone.embed(torch.cat([prompt, ids]))[None])[0]
        logits = backbone.logits(hidden)[len(prompt) - 1 : -1]
        total += float(F.cross_entropy(logits, ids, reduction="sum"))
        count += len(ids)
        denominators.append(logits.logsumexp(-1))
    loss = task.loss(batch, context)
    assert float(loss.total) == pytest.approx(total, rel=1e-5) and int(loss.count) == count
    task.z_loss = 0.1
    z = torch.cat(denominators).square().sum()
    assert float(task.loss(batch, context).total) == pytest.approx(total + 0.1 * float(z), rel=1e-4)


@pytest.mark.slow
def test_a_language_of_units_is_learned_from_their_order() -> None:
    """Units that follow a rule have a perplexity near 1; in random order, no lower than their
    number allows."""
    rule = [[(start + k) % 4 for k in range(8)] for start in range(4)]
    generator = torch.Generator().manual_seed(0)
    chance = [torch.randint(4, (8,), generator=generator).tolist() for _ in range(12)]
    values = []
    for rows, held_out in ((rule, rule), (chance[:4], chance[4:])):
        task, backbone = made(Letters(), max_new_tokens=3)
        examples = [{} for _ in rows]
        batch = prepare_batch(task, examples, decoder=backbone)
        trained(task, backbone, batch, StubContext({"signal": codes_of(rows)}).on(backbone), 100)
        test = prepare_batch(task, [{} for _ in held_out], decoder=backbone, training=False)
        test.streams["signal"] = {}
        metrics, context = task.metrics(), StubContext({"signal": codes_of(held_out)}).on(backbone)
        metrics.update(task.predict(test, context), test.references)
        values.append(metrics.compute()["perplexity"])
    assert values[0] < 1.6 and values[1] > 3
    assert values[0] < math.sqrt(values[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "{caption}"}, "names no stream; write <image>"),
        ({"target": "<a> <a>"}, "names a stream twice"),
        ({"target": "<a>", "prompt": "<a>"}, "<a> is in the prompt too"),
        ({"target": "<a> {"}, "a brace without its partner"),
    ],
)
def test_mistakes_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SignalGeneration(**options)
