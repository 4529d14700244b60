"""Contrastive losses: open_clip's, and the identities of the papers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor
from torch.nn import functional as F

from sensorium.modalities.base import Features
from sensorium.tasks.batch import Batch
from sensorium.tasks.common import l2_normalize
from sensorium.tasks.contrastive.contrastive import Contrastive
from sensorium.tasks.contrastive.losses import cross_entropy, cwcl_targets
from sensorium.testing.context import StubContext, prepare_batch

ROWS, DIM = 7, 16


def contexts(task: Contrastive, **vectors: Tensor) -> StubContext:
    """A context over vectors that are already there."""
    features = {name: Features.dense(v[:, None], pooled=v) for name, v in vectors.items()}
    return StubContext(features, teachers=task.teacher_streams)


def some(seed: int, rows: int = ROWS, dim: int = DIM) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=generator, requires_grad=True)


def batch_of(rows: int = ROWS, group: Sequence[object] | None = None) -> Batch:
    task = made(positive_group=None if group is None else "group")
    return prepare_batch(task, [{} if group is None else {"group": group[i]} for i in range(rows)])


def made(streams: Sequence[str] = ("image", "caption"), **options: Any) -> Contrastive:
    return Contrastive(streams=list(streams), dim=DIM, **options)


def mean_loss(task: Contrastive, batch: Batch, **vectors: Tensor) -> Tensor:
    loss = task.loss(batch, contexts(task, **vectors))
    assert loss.count == len(batch)
    return loss.total / loss.count


@pytest.mark.parametrize("kind", ["infonce", "siglip"])
def test_losses_are_those_of_open_clip(kind: str) -> None:
    task = made(loss=kind, bias=-3.0)
    image, caption = some(0), some(1)
    ours = mean_loss(task, batch_of(), image=image, caption=caption)
    mine = torch.autograd.grad(ours, [image, caption, *task.parameters()])
    a, b = (F.normalize(v, dim=-1) for v in (image, caption))
    if kind == "infonce":
        theirs = ClipLoss()(a, b, task.log_scale.exp())
    else:
        theirs = SigLipLoss()(a, b, task.log_scale.exp(), task.bias)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    other = torch.autograd.grad(theirs, [image, caption, *task.parameters()])
    torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_every_pair_of_streams_counts_alike() -> None:
    vectors = {name: some(i) for i, name in enumerate(("image", "caption", "sound"))}
    whole = mean_loss(made(tuple(vectors)), batch_of(), **vectors)
    pairs = [("image", "caption"), ("image", "sound"), ("caption", "sound")]
    apart = [mean_loss(made(p), batch_of(), **{n: vectors[n] for n in p}) for p in pairs]
    torch.testing.assert_close(whole, sum(apart) / 3)


@pytest.mark.parametrize("kind", ["infonce", "siglip"])
def test_rows_of_a_group_belong_together(kind: str) -> None:
    groups = ["a", "b", "a", None, None, 1, "1"]  # null stands alone; 1 is not "1"
    same = torch.eye(ROWS, dtype=torch.bool)
    same[0, 2] = same[2, 0] = True
    task = made(loss=kind, positive_group="study")
    image, caption = some(0), some(1)
    result = mean_loss(task, batch_of(group=groups), image=image, caption=caption)
    logits = task.log_scale.exp() * l2_normalize(image) @ l2_normalize(caption).T
    if kind == "infonce":

        def direction(logits: Tensor) -> Tensor:
            each = [-logits[i].log_softmax(0)[same[i]].mean() for i in range(ROWS)]
            return torch.stack(each).mean()

        expected = (direction(logits) + direction(logits.T)) / 2
    else:
        signs = torch.where(same, 1.0, -1.0)
        expected = F.softplus(-signs * (logits + task.bias)).sum() / ROWS
    torch.testing.assert_close(result, expected)
    alone = mean_loss(task, batch_of(group=list(range(ROWS))), image=image, caption=caption)
    plain = mean_loss(made(loss=kind), batch_of(), image=image, caption=caption)
    torch.testing.assert_close(alone, plain)


def test_a_row_without_its_group_is_named() -> None:
    with pytest.raises(ValueError, match=r"row '0': has no column 'study'"):
        mean_loss(made(positive_group="study"), batch_of(), image=some(0), caption=some(1))


def test_soft_weights_touch_the_named_direction_alone() -> None:
    """CWCL: `w_ij = (1 + cos) / 2` in rows that sum to one, from the stream that was named."""
    image, caption, look = some(0), some(1), some(2)
    task = made(loss="soft", soft_target_streams={"image": "look"})
    widths = {name: (use.role, use.width) for name, use in task.streams.items()}
    learned = {"image": ("input", DIM), "caption": ("input", DIM)}
    assert widths == {"look": ("teacher", None)} | learned
    assert task.inputs() == ("image", "caption")
    result = mean_loss(task, batch_of(), image=image, caption=caption, look=look)
    weights = (1 + F.cosine_similarity(look[:, None], look[None], dim=-1)) / 2
    logits = task.log_scale.exp() * l2_normalize(image) @ l2_normalize(caption).T
    forth = -(weights * logits.log_softmax(1)).sum(1) / weights.sum(1)
    back = F.cross_entropy(logits.T, torch.arange(ROWS), reduction="none")
    torch.testing.assert_close(result, ((forth + back) / 2).mean())
    result.backward()
    assert look.grad is None


def test_soft_targets_keep_their_promises() -> None:
    vectors = l2_normalize(some(0)).detach()
    same = torch.eye(ROWS, dtype=torch.bool)
    weights = cwcl_targets(vectors, vectors, same)
    torch.testing.assert_close(weights.sum(1), torch.ones(ROWS))
    twins = torch.stack([vectors[0], vectors[0], -vectors[0]])
    weights = cwcl_targets(twins, twins, torch.eye(3, dtype=torch.bool))
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1.0]]))
    logits = some(3, ROWS, ROWS)
    torch.testing.assert_close(
        cross_entropy(logits, torch.eye(ROWS)),
        F.cross_entropy(logits, torch.arange(ROWS), reduction="sum"),
    )


def test_teachers_add_the_distance_to_the_mean_of_their_cosines() -> None:
    image, caption = some(0), some(1)
    names = [{"image": f"image{i}", "caption": f"caption{i}"} for i in (1, 2)]
    teachers = {name: some(5 + i, dim=9) for i, name in enumerate(("image1", "caption1"))}
    teachers |= {name: some(8 + i, dim=5) for i, name in enumerate(("image2", "caption2"))}
    task = made(teachers=names, teacher_weight=3.0)
    batch = batch_of()
    loss = task.loss(batch, contexts(task, image=image, caption=caption, **teachers))
    plain = mean_loss(made(), batch, image=image, caption=caption)
    mean = (
        sum(
            l2_normalize(teachers[f"image{i}"]) @ l2_normalize(teachers[f"caption{i}"]).T
            for i in (1, 2)
        )
        / 2
    )
    extra = F.smooth_l1_loss(l2_normalize(image) @ l2_normalize(caption).T, mean)
    torch.testing.assert_close(loss.total / ROWS, plain + 3 * extra)
    torch.testing.assert_close(loss.parts["teachers"] / ROWS, extra.detach())
    loss.total.backward()
    assert all(vector.grad is None for vector in teachers.values())


def test_a_teacher_that_is_the_student_adds_nothing() -> None:
    image, caption = some(0), some(1)
    task = made(teachers=[{"image": "i", "caption": "c"}])
    encode = contexts(task, image=image, caption=caption, i=image * 3, c=caption * 5)
    assert float(task.loss(batch_of(), encode).parts["teachers"]) < 1e-10


def test_a_batch_of_one_and_a_perfect_match_cost_nothing() -> None:
    one = some(0, 1)
    assert mean_loss(made(), batch_of(1), image=one, caption=some(1, 1)).item() == 0
    far = torch.eye(ROWS, DIM)
    task = made(temperature=0.01)
    loss = task.loss(batch_of(), contexts(task, image=far, caption=far))
    assert loss.total.item() < 1e-6
    assert float(loss.parts["correct"]) == ROWS
    assert float(loss.parts["scale"] / ROWS) == pytest.approx(100)


def test_the_scale_stops_at_a_hundred() -> None:
    task = made()
    assert math.exp(task.log_scale.item()) == pytest.approx(1 / 0.07)
    with torch.no_grad():
        task.log_scale.fill_(9.0)
    task.on_step_end(StubContext({}))
    assert math.exp(task.log_scale.item()) == pytest.approx(100)
    assert math.exp(made(loss="siglip").log_scale.item()) == pytest.approx(10)


def test_cosines_are_computed_in_full_precision() -> None:
    image, caption = some(0), some(1)
    plain = mean_loss(made(), batch_of(), image=image, caption=caption)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = mean_loss(made(), batch_of(), image=image, caption=caption)
    assert torch.equal(plain, mixed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"streams": ["image"]}, "streams: found image; expected two"),
        ({"streams": ["image", "image"]}, "streams: found image, image"),
        ({"temperature": 0.001}, r"temperature: found 0\.001, expected 0\.01 or more"),
        ({"gradcache_chunk_size": 0}, "gradcache_chunk_size: found 0"),
        ({"loss": "soft"}, "soft_target_streams: found none with loss: soft"),
        (
            {"soft_target_streams": {"image": "look"}},
            "soft_target_streams: found .* with loss: infonce",
        ),
        (
            {"loss": "soft", "soft_target_streams": {"sound": "look"}},
            "soft_target_streams: 'sound' is not one of image, caption",
        ),
        ({"teachers": [{"image": "x"}]}, "teachers: number 1 stands for image, expected"),
        (
            {"loss": "soft", "soft_target_streams": {"image": "caption"}},
            "'caption' is itself learned",
        ),
        ({"teachers": [{"image": "x", "caption": "image"}]}, "names a stream that is learned"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Contrastive(**{"streams": ["image", "caption"], **options})
