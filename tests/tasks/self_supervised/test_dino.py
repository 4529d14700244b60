"""Self-supervision on tiny volumes and pictures: what counts, what does not, when it stops."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorium.modalities.base import Encoder, Features
from sensorium.modalities.image.encoders.timm import Timm
from sensorium.modalities.mri.encoders.vit3d import ViT3D
from sensorium.tasks.base import StopTraining
from sensorium.tasks.batch import Batch
from sensorium.tasks.common import ema_copy, ema_update
from sensorium.tasks.self_supervised.dino import DINO, MIN_ROWS
from sensorium.tasks.self_supervised.dino_losses import cross_entropy, sinkhorn
from sensorium.testing.context import StubContext

SIZES: dict[str, Any] = {"prototypes": 24, "hidden": 16, "bottleneck": 8}
VOLUMES: dict[str, Any] = {"input": "scan", "size": 8, "local_size": 4, "local_crops": 2, **SIZES}


class Live(StubContext):
    """`encode` of one stream by its encoder and an average of it, a view at a time."""

    def __init__(self, encoder: Encoder, teacher: Encoder, views: Mapping[str, Any]) -> None:
        super().__init__(self.run)
        self.points = {"encoder": encoder, "ema": teacher}
        self.views = views
        self.masks: dict[str, Tensor] = {}

    def run(self, stream: str, view: str = "main", **options: Any) -> Features:
        point = stream.partition(".")[2]
        if "token_mask" in options:
            self.masks[view] = options["token_mask"]
        with torch.set_grad_enabled(point == "encoder" and torch.is_grad_enabled()):
            result: Features = self.points[point](**self.views[view], **options)
        return result


def volumes(rows: int, seed: int = 0, side: int = 10) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    inside = torch.ones(side, side, side, dtype=torch.bool)
    inside[:, :, : side // 2] = False
    return [
        {
            "volume": torch.randn(1, side, side, side, generator=generator) * inside,
            "inside": inside.clone(),
            "contrasts": torch.ones(1, dtype=torch.bool),
            "affine": torch.eye(4),
        }
        for _ in range(rows)
    ]


def vit() -> ViT3D:
    return ViT3D(size=(8, 8, 8), patch=(2, 2, 2), dim=12, depth=2, heads=2, layer_scale=None)


def made(rows: int, samples: Any = None, **options: Any) -> tuple[DINO, Live, Batch]:
    torch.manual_seed(0)
    encoder = vit()
    task = DINO(**{**VOLUMES, **options})
    task.build({"scan": 12, "scan.encoder": 12}, {})
    rng = np.random.default_rng(0)
    views = [task.views("scan", sample, rng) for sample in samples or volumes(rows)]
    batches = {name: encoder.collate([view[name] for view in views]) for name in views[0]}
    batch = Batch("dino", [str(i) for i in range(rows)], [{}] * rows)
    return task, Live(encoder, ema_copy(encoder), batches), batch


def step(task: DINO, encode: Live, batch: Batch, seed: int = 1) -> Any:
    torch.manual_seed(seed)  # of the masks
    return task.loss(batch, encode)


def test_the_student_learns_and_the_teacher_does_not() -> None:
    task, encode, batch = made(4)
    loss = step(task, encode, batch)
    assert loss.count == 4 and torch.isfinite(loss.total)
    assert set(loss.parts) == {"vector", "token", "koleo", "entropy", "rank"}
    loss.total.backward()
    for name, encoder in encode.points.items():
        assert all((p.grad is not None) == (name == "encoder") for p in encoder.parameters())
    assert all(p.grad is not None for p in task.student.parameters())
    assert all(p.grad is None and not p.requires_grad for p in task.teacher.parameters())


def test_the_loss_is_what_the_paper_says() -> None:
    """Each crop of the student against each other global crop of the teacher; the mean of the
    pairs, and the tokens where they were masked."""
    task, encode, batch = made(4, patch_weight=0.0)
    loss = step(task, encode, batch)
    with torch.no_grad():
        goal = torch.cat([encode("scan.ema", f"global{i}").pool() for i in (0, 1)])
        goals = sinkhorn(task.teacher["vector"](goal), 0.04).split(4)
        terms = []
        against = {"global0": [1], "global1": [0], "local0": [0, 1], "local1": [0, 1]}
        for view, others in against.items():
            options = {"token_mask": encode.masks[view]} if view in encode.masks else {}
            student = task.student["vector"](encode("scan.encoder", view, **options).pool())
            terms += [cross_entropy(student, goals[other], 0.1).sum() for other in others]
    torch.testing.assert_close(loss.total, torch.stack(terms).mean())


def test_only_masked_tokens_that_are_real_count() -> None:
    """Other targets of the teacher at a token that was not masked change nothing."""
    task, encode, batch = made(4)
    plain = step(task, encode, batch).parts["token"]
    masks = torch.cat([encode.masks["global0"], encode.masks["global1"]])
    assert 0 < int(masks.sum()) < masks.numel()
    real = torch.cat([encode("scan.ema", f"global{i}").mask for i in (0, 1)])
    assert (masks & ~real).any(), "the case has no masked padding"
    teacher = encode.points["ema"]

    def changed(where: Tensor) -> Tensor:
        def other(view: str) -> Features:
            result = teacher(**encode.views[view])
            rows = slice(0, 4) if view == "global0" else slice(4, 8)
            noise = torch.randn(result.tokens.shape, generator=torch.Generator().manual_seed(3))
            return result.replace(tokens=result.tokens + noise * where[rows, :, None])

        def asked(stream: str, view: str = "main", **options: Any) -> Features:
            return other(view) if "ema" in stream else encode(stream, view, **options)

        torch.manual_seed(1)
        return task.loss(batch, StubContext(asked)).parts["token"]

    torch.testing.assert_close(changed(~masks | ~real), plain)
    assert not torch.allclose(changed(masks & real), plain)


def test_padded_voxels_change_nothing() -> None:
    task, encode, batch = made(4)
    plain = step(task, encode, batch)
    for tensors in encode.views.values():
        outside = ~tensors["inside"][:, None]
        assert outside.any()
        tensors["volume"] = tensors["volume"] + 9 * outside
    result = step(task, encode, batch)
    torch.testing.assert_close(result.total, plain.total)


def test_koleo_needs_enough_rows() -> None:
    few, many = made(4), made(MIN_ROWS)
    assert float(step(*few).parts["koleo"]) == 0
    assert float(step(*many).parts["koleo"]) != 0
    assert float(step(*made(MIN_ROWS, koleo_weight=0.0)).parts["koleo"]) == 0


def test_the_averages_decay_by_a_cosine_and_the_temperature_warms_up() -> None:
    task, encode, batch = made(4, ema_decay=(0.5, 1.0), teacher_temperature_warmup=0.5)
    assert [task.ema_decay(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.5, 0.75, 1.0])
    assert list(task.ema_modules()) == [(task.teacher, task.student)]
    temperatures = [task._teacher_temperature(p) for p in (0.0, 0.25, 0.5, 1.0)]
    assert temperatures == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert made(4, teacher_temperature_warmup=0.0)[0]._teacher_temperature(0.0) == pytest.approx(
        0.07
    )
    early, late = (step(task, encode.at(0, p), batch).total for p in (0.0, 1.0))
    assert not torch.isclose(early, late)


def test_a_teacher_that_says_the_same_of_everything_stops_the_run() -> None:
    rows = MIN_ROWS // 2
    whole = {"scale": (1.0, 1.0), "local_scale": (1.0, 1.0), "patience": 3}
    task, encode, batch = made(rows, [volumes(1)[0]] * rows, **whole)
    for _ in range(2):
        step(task, encode, batch)
        task.on_step_end(encode.at(1, 0.0))
    step(task, encode, batch)
    with pytest.raises(StopTraining, match=r"collapsed: .* rank 1\.0\d? \(expected 1\.1 or more\)"):
        task.on_step_end(encode.at(3, 0.0))
    task.eval()
    remaining = int(task.collapsed_steps)
    step(task, encode, batch)
    assert int(task.collapsed_steps) == remaining  # an evaluation is no training


def test_a_teacher_that_tells_things_apart_goes_on() -> None:
    task, encode, batch = made(MIN_ROWS, patience=1, min_rank=1.0)
    loss = step(task, encode, batch)
    task.on_step_end(encode.at(1, 0.0))
    entropy, rank = (float(loss.parts[k]) / MIN_ROWS for k in ("entropy", "rank"))
    assert 0 < entropy < math.log(24) and 1 < rank <= 12 + 1e-3


@pytest.mark.slow
def test_it_learns_on_the_same_crops() -> None:
    task, encode, batch = made(8, ema_decay=(0.9, 1.0))
    parameters = [*encode.points["encoder"].parameters(), *task.student.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    values = []
    for number in range(40):
        loss = step(task, encode, batch, seed=number)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
        values.append(float(loss.total.detach()) / 8)
        for average, module in task.ema_modules():
            ema_update(average, module, task.ema_decay(number / 40))
    assert sum(values[-5:]) < 0.9 * sum(values[:5])


def test_an_empty_batch_takes_part_without_rows() -> None:
    task, encode, _ = made(4)
    loss = task.loss(Batch("dino", [], []), encode)
    assert loss.count == 0 and float(loss.total.detach()) == 0
    loss.total.backward()
    assert set(loss.parts) == {"vector", "token", "koleo", "entropy", "rank"}


def test_pictures_are_learned_by_the_same_task() -> None:
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 2}
    encoder = Timm(
        name="vit_tiny_patch16_224",
        options={**options, "dynamic_img_size": True},
        mask_token=True,
    )
    assert "token_mask" in encoder.supports
    task = DINO(input="image", size=16, local_size=8, local_crops=1, **SIZES)
    task.build({"image": 12, "image.encoder": 12}, {})
    rng = np.random.default_rng(0)
    samples = [{"pixel_values": torch.randn(3, 20, 24)} for _ in range(3)]
    views = [task.views("image", sample, rng) for sample in samples]
    batches = {name: encoder.collate([view[name] for view in views]) for name in views[0]}
    encode = Live(encoder, ema_copy(encoder), batches)
    loss = task.loss(Batch("dino", ["a", "b", "c"], [{}] * 3), encode)
    loss.total.backward()
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": (0.5, 0.2)}, r"scale: found 0\.5 to 0\.2"),
        ({"ema_decay": (0.9, 1.1)}, "ema_decay: found"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DINO(**{**VOLUMES, **options})
