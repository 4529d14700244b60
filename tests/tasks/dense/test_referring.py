"""Bridges between two frozen towers: the identity at first, and masks that follow the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.connectors.decoders import Unetr
from sensorium.engine.recipe import ComponentPath, Section, TaskSection, find, plan_part, plan_task
from sensorium.modalities.base import Features
from sensorium.modalities.image.mask import write
from sensorium.tasks.batch import Batch
from sensorium.tasks.dense.referring import Referring
from sensorium.testing.context import StubContext

VIT = {"type": "timm", "name": "vit_tiny_patch16_224", "weights": "none"}
VIT["options"] = {  # type: ignore[assignment]
    "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2,
}  # fmt: skip
BERT = {
    "model_type": "bert", "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 32,
}  # fmt: skip
TEXT = {"type": "transformers", "config": BERT, "tokenizer": "bytes", "max_length": 32}


def tower(kind: str, options: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    section = Section.model_validate(options)
    part = find(kind, options["type"], "x")
    return plan_part(part, section, kind, ComponentPath("encoder")).build().eval()


class Towers(StubContext):
    """Two real towers over a fixed batch, and the true masks."""

    def __init__(self, pixels: torch.Tensor, texts: list[str], truth: torch.Tensor) -> None:
        super().__init__({})
        self.parts = {"image": tower("image_encoder", VIT), "text": tower("text_encoder", TEXT)}
        for part in self.parts.values():
            part.requires_grad_(False)
        text = self.parts["text"]
        samples = [text.processor.prepare(t) for t in texts]
        self.inputs = {"image": {"pixel_values": pixels}, "text": text.collate(samples)}
        side = truth.shape[-1]
        self.truth = Features.dense(
            truth.flatten(1)[..., None], grid=(side, side), spacing=(1.0, 1.0), origin=(0.5, 0.5),
            affine=torch.eye(3).repeat(len(truth), 1, 1),
        )  # fmt: skip

    def encode(self, stream: str, view: str = "main", **options: Any) -> Features:
        name = stream.partition(".")[0]
        if name == "mask":
            return self.truth
        features: Features = self.parts[name](**self.inputs[name], **options)
        if name == "text":
            return features
        return features.replace(affine=torch.eye(3).repeat(len(features.tokens), 1, 1))


def task_of(**options: Any) -> Referring:
    torch.manual_seed(0)
    task = Referring(input="image", text="text", layers=[1, 2], width=16, prior=0.3, **options)
    task.build({"image.encoder": 32, "text.encoder": 24}, {})
    task.heads["head"] = Unetr(32, 1, ups=3, width=16, axes=2)
    return task


def scene() -> tuple[torch.Tensor, list[str], torch.Tensor]:
    """Each picture has a bright and a dark square; the text asks for one of them."""
    pixels, truth, texts = torch.zeros(4, 3, 32, 32), torch.zeros(4, 32, 32), []
    for row in range(4):
        left = slice(0, 16) if row < 2 else slice(16, 32)
        right = slice(16, 32) if row < 2 else slice(0, 16)
        pixels[row, :, 8:24, left], pixels[row, :, 8:24, right] = 2.0, -2.0
        texts.append("bright" if row % 2 else "dark")
        truth[row, 8:24, left if row % 2 else right] = 1
    return pixels, texts, truth


def test_zero_bridges_leave_the_towers_as_they_are() -> None:
    context, task = Towers(*scene()), task_of()
    picture, text = task.bridged(context)
    assert torch.equal(picture.tokens, context.encode("image").tokens)
    assert torch.equal(text.tokens, context.encode("text").tokens)
    for bridge in task.bridges.modules():
        if hasattr(bridge, "up"):
            torch.nn.init.normal_(bridge.up.weight)
    changed, words = task.bridged(context)
    assert not torch.allclose(changed.tokens, picture.tokens)
    assert not torch.allclose(words.tokens, text.tokens)


def test_a_picture_reads_the_text_of_its_own_row() -> None:
    context, task = Towers(*scene()), task_of()
    for bridge in task.bridges.modules():
        if hasattr(bridge, "up"):
            torch.nn.init.normal_(bridge.up.weight)
    before = task.bridged(context)[0].tokens
    context.inputs["text"]["ids"][0] = context.inputs["text"]["ids"][1]
    context.inputs["text"]["mask"][0] = context.inputs["text"]["mask"][1]
    after = task.bridged(context)[0].tokens
    assert not torch.allclose(before[0], after[0])
    torch.testing.assert_close(before[1:], after[1:], atol=1e-5, rtol=1e-4)


def test_bridges_of_a_real_size_are_under_4_percent_of_their_towers() -> None:
    with torch.device("meta"):
        task = Referring(input="image", text="text", layers=[3, 7, 11], width=64)
        task.build({"image.encoder": 768, "text.encoder": 512}, {})
    layer = 12  # parameters of a transformer's layer, in squares of its width
    towers = 12 * layer * (768**2 + 512**2)
    share = sum(p.numel() for p in task.bridges.parameters()) / towers
    assert 0.001 < share < 0.04


@pytest.mark.slow
def test_the_mask_follows_the_text() -> None:
    """With both towers frozen; with the texts swapped the other square is found."""
    context, task = Towers(*scene()), task_of()
    batch = Batch("task", list("abcd"), [{}] * 4)
    before = [p.clone() for part in context.parts.values() for p in part.parameters()]
    optimizer = torch.optim.Adam(task.parameters(), lr=3e-3)
    for _ in range(150):
        loss = task.loss(batch, context)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    after = [p for part in context.parts.values() for p in part.parameters()]
    assert all(map(torch.equal, before, after))
    overlaps = []
    for order in ([0, 1, 2, 3], [1, 0, 3, 2]):
        for key in context.inputs["text"]:
            context.inputs["text"][key] = context.inputs["text"][key][order]
        with torch.no_grad():
            tokens = task._head_output(context).tokens[..., 0].sigmoid() > 0.5
        truth = context.truth.tokens[..., 0] > 0.5
        both = (tokens & truth).sum(1) / (tokens | truth).sum(1)
        overlaps.append(float(both.mean()))
    assert overlaps[0] > 0.7 and overlaps[1] < 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": []}, "text_layers: found 0, expected as many as layers, one or more"),
        ({"layers": [1], "text_layers": [1, 2]}, "text_layers: found 2, expected as many"),
        ({"layers": [1], "heads": 7}, "heads: found 7 at width 64"),
    ],
)
def test_mistakes_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Referring(input="image", text="text", **options)


def test_a_mask_becomes_a_file_on_the_pixels_of_its_picture(tmp_path: Path) -> None:
    """A grid of 2 x 3 over 20 x 60 px: each pixel has the value of the place it lies in."""
    mask = torch.tensor([[True, False, False], [False, False, True]])
    matrix = torch.tensor([[10.0, 0, 5.0], [0, 20.0, 10.0], [0, 0, 1.0]])  # index -> centre in px
    picture = Image.new("RGB", (60, 20))
    file = write(tmp_path / "a_mask", mask, matrix, picture)
    assert file.name == "a_mask.png"
    expected = mask.repeat_interleave(10, 0).repeat_interleave(20, 1)
    assert torch.equal(torch.from_numpy(np.array(Image.open(file))) > 0, expected)
    values = write(tmp_path / "a_map", mask * 0.25, matrix, picture)
    assert np.allclose(np.array(Image.open(values)), expected * 0.25)


def test_pictures_need_no_option_of_the_head() -> None:
    section = TaskSection.model_validate(
        {"type": "referring", "input": "image", "text": "text", "layers": [1]}
    )
    plan = plan_task(Referring, section, ComponentPath("tasks.x"))
    assert plan.heads["head"].build(in_dim=32, out_dim=1).axes == 2
    with pytest.raises(ValueError, match=r"set head: \{type: unetr, axes: 2\}"):
        Unetr(8, 1)(Features.dense(torch.zeros(1, 4, 8), grid=(2, 2)))
