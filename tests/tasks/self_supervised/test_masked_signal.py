"""Masked-signal modelling: masks, targets, and what is learned only if the rest is seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.engine.recipe import ComponentPath, Section, find, plan_part
from sensorium.modalities.base import Encoder, Features
from sensorium.modalities.features import split_signal
from sensorium.tasks.batch import Batch
from sensorium.tasks.self_supervised.masked_signal import MaskedSignal, draw_spans
from sensorium.testing.context import StubContext


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_values_under_a_token_are_its_block(axes: int) -> None:
    """By plain indexing; a last block that is not whole is filled with zeros."""
    steps, sizes = (2, 3, 2)[:axes], (5, 7, 4)[:axes]
    grid = tuple(-(-size // step) for size, step in zip(sizes, steps, strict=True))
    signal = torch.randn(2, 3, *sizes)
    values = split_signal(signal, grid, steps)
    for number, place in enumerate(torch.cartesian_prod(*map(torch.arange, grid)).view(-1, axes)):
        slices = [slice(p * s, p * s + s) for p, s in zip(place.tolist(), steps, strict=True)]
        block = signal[(slice(None), slice(None), *slices)].movedim(1, -1).flatten(1)
        if block.shape[1] == values.shape[2]:
            torch.testing.assert_close(values[:, number], block)
        assert float(values[:, number].sum()) == pytest.approx(float(block.sum()), abs=1e-4)


def test_spans_are_short_apart_and_of_the_right_number() -> None:
    """A quarter of the tokens within 1 %, no run over 6 (PIXEL)."""
    for seed in range(200):
        length = 40 + seed
        places = draw_spans(length, round(0.25 * length), seeded(seed)).tolist()
        assert len(set(places)) == len(places) == round(0.25 * length)
        assert min(places) >= 0 and max(places) < length
        masked = "".join("x" if i in places else " " for i in range(length))
        assert max(map(len, masked.split())) <= 6
    assert len(set(draw_spans(4, 3, seeded(0)).tolist())) == 3


@pytest.mark.parametrize("masking", ["random", "block", "span"])
def test_masks_are_of_real_tokens_and_follow_the_seed(masking: Any) -> None:
    task = MaskedSignal(input="a", mask_ratio=0.4, masking=masking)
    mask = torch.tensor([[True] * 20, [True] * 10 + [False] * 10])
    truth = Features(torch.zeros(2, 20, 3), mask, grid=(4, 5))
    masks = task.masks(truth, [seeded(1)] * 2)
    assert masks.sum(1).tolist() == [8, 4] and not (masks & ~mask).any()
    assert torch.equal(masks, task.masks(truth, [seeded(1)] * 2))
    assert not torch.equal(masks, task.masks(truth, [seeded(2)] * 2))


def encoder(**options: Any) -> Encoder:
    values = {"type": "rendered", "dim": 32, "depth": 2, "heads": 4, **options}
    torch.manual_seed(0)
    part = find("text_encoder", "rendered", "x")
    section = Section.model_validate(values)
    built: Encoder = plan_part(part, section, "text_encoder", ComponentPath("encoder")).build()
    return built


class Live(StubContext):
    """Encodes a batch of texts by a real encoder."""

    def __init__(self, part: Any, texts: list[str]) -> None:
        super().__init__({})
        self.part = part
        self.inputs = part.collate([part.processor.prepare(text) for text in texts])

    def encode(self, stream: str, view: str = "main", **options: Any) -> Features:
        point = stream.rpartition(".")[2]
        part = self.part
        return part.targets(**self.inputs) if point == "targets" else part(**self.inputs, **options)


TEXTS = ["abababababab", "cdcdcdcdcdcd", "efefefefefef"]


@pytest.mark.slow
def test_hidden_text_is_read_off_its_neighbours() -> None:
    """The pixels under a mask are predicted better than by their mean; not if the neighbours are
    of another text."""
    torch.manual_seed(0)
    part: Any = encoder()
    task = MaskedSignal(input="text", mask_ratio=0.25, masking="span")
    task.build({"text.encoder": 32, "text.targets": 256}, {})
    context, batch = Live(part, TEXTS), Batch("task", ["0", "1", "2"], [{}] * 3)
    optimizer = torch.optim.Adam([*part.parameters(), *task.parameters()], lr=3e-3)
    context.generator = seeded(0)
    for _ in range(150):
        loss = task.loss(batch, context)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    learned = sum(row["loss"] for row in task.predict(batch, context)) / 3
    swapped = Live(part, TEXTS)
    rest = {**swapped.inputs, "strip": swapped.inputs["strip"].roll(1, 0)}
    right = swapped.encode
    swapped.encode = lambda stream, view="main", **options: (  # type: ignore[method-assign]
        right(stream) if stream.endswith("targets") else part(**rest, **options)
    )
    wrong = sum(row["loss"] for row in task.predict(batch, swapped)) / 3
    assert learned < 0.5 < 0.75 < wrong


def test_the_loss_of_a_constant_is_one() -> None:
    """Targets are normalized in each token; with `depth: 0` the decoder is one linear map."""
    part: Any = encoder()
    task = MaskedSignal(input="text", depth=0)
    task.build({"text.encoder": 32, "text.targets": 256}, {})
    torch.nn.init.zeros_(task.leave.weight)
    torch.nn.init.zeros_(task.leave.bias)
    context = Live(part, ["some text to read"])
    errors, masked = task._errors(Batch("task", ["0"], [{}]), context, [seeded(0)])
    truth = context.encode("text.targets").tokens
    assert masked.any()
    expected = (truth.var(-1) > 0).float()  # the black end is constant
    torch.testing.assert_close(errors.detach(), expected, atol=1e-3, rtol=0)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="heads: found 5 at width 64"):
        MaskedSignal(input="a", heads=5)
