"""Grounding: masks laid over tokens, what counts as elsewhere, maps that come back as files."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sensorium.modalities.base import Features
from sensorium.modalities.mri.encoders.mask import Mask
from sensorium.modalities.mri.encoders.vit3d import ViT3D
from sensorium.modalities.mri.io import read, read_mask
from sensorium.modalities.mri.phantom import Phantom
from sensorium.modalities.mri.write import save
from sensorium.tasks.batch import Batch
from sensorium.tasks.common import mask_coverage
from sensorium.tasks.dense.grounding import Grounding
from sensorium.tasks.dense.pointing_metrics import PointingMetrics
from sensorium.testing.context import StubContext, prepare_batch
from sensorium.tests.tasks.dense.grounded_cases import (
    OPTIONS,
    TOKENS,
    batch_of,
    case,
    mask_of,
    tokens,
)


def test_a_mask_is_averaged_over_each_tokens_extent() -> None:
    like = tokens(2)
    whole = mask_coverage(mask_of(like, [[0, 5], []]), like, "it")
    expected = torch.zeros(2, TOKENS)
    expected[0, [0, 5]] = 1
    torch.testing.assert_close(whole, expected)
    half = mask_of(like, [[5], [7]])
    values = half.tokens.clone().unflatten(1, half.grid or ())
    values[:, :, :, ::2] = 0
    result = mask_coverage(half.replace(tokens=values.flatten(1, 3)), like, "it")
    assert result[0, 5] == pytest.approx(0.5) and result[1, 7] == pytest.approx(0.5)
    assert float(result.sum()) == pytest.approx(1.0)


def test_a_mask_in_another_space_covers_the_same_places() -> None:
    """Its voxels may lie in any order and size: only the world counts."""
    like = tokens(1)
    plain = mask_of(like, [[0, 9, 23]])
    assert plain.affine is not None
    values = plain.tokens.unflatten(1, plain.grid or ())
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
    flip[0, 3] = values.shape[1] - 1
    flipped = plain.replace(tokens=values.flip(1).flatten(1, 3), affine=plain.affine @ flip)
    torch.testing.assert_close(mask_coverage(flipped, like, "it"), mask_coverage(plain, like, "it"))


def test_the_loss_is_the_balanced_cross_entropy_of_torch() -> None:
    batch, encode = case([[0, 5], [7]], padded=3)
    task = Grounding(**OPTIONS)
    loss = task.loss(batch, encode)
    scan = encode("scan")
    cosines = F.cosine_similarity(scan.tokens, encode("said").pool()[:, None], dim=-1)
    logits = task.log_scale.exp() * cosines + task.bias
    goal = mask_coverage(encode("mask"), scan, "it")
    each = F.binary_cross_entropy_with_logits(logits, goal, reduction="none")
    yes, no = goal > 0, (goal == 0) & scan.mask
    expected = [(each[i][yes[i]].mean() + each[i][no[i]].mean()) / 2 for i in range(2)]
    torch.testing.assert_close(loss.total, torch.stack(expected).sum())
    assert loss.count == 2


def test_with_focus_the_surest_uncovered_tokens_weigh_most() -> None:
    facts = [{"about": "lesion", "finding": side} for side in ("left", "right")]
    batch, encode = case([[0, 5], [7]], facts, padded=3)
    task = Grounding(**OPTIONS, finding="finding", negative_group="about", hard_negative_scale=2.0)
    logits, real = task._logits(encode("scan"), encode), encode("scan").mask
    covered = mask_coverage(encode("mask"), encode("scan"), "it") > 0

    def hardest(values: torch.Tensor, open_: torch.Tensor) -> torch.Tensor:
        weights = (2 * values[open_]).softmax(0).detach()
        return (weights * F.softplus(values[open_])).sum()

    total = torch.zeros(())
    for i, other in ((0, 1), (1, 0)):
        row_logits = logits[i, i]
        total = (
            total
            + (
                F.softplus(-row_logits[covered[i]]).mean()
                + hardest(row_logits, real[i] & ~covered[i])
            )
            / 2
        )
        total = total + hardest(logits[i, other], real[other]) / 2
    torch.testing.assert_close(task.loss(batch, encode).total, total)


def test_padded_tokens_count_for_nothing() -> None:
    batch, encode = case([[0], [7]], padded=3)
    task = Grounding(**OPTIONS)
    plain = task.loss(batch, encode).total
    scan = encode("scan")
    noise = scan.tokens.detach().clone()
    noise[~scan.mask] = 9.0
    encode.features["scan"] = scan.replace(tokens=noise)
    torch.testing.assert_close(task.loss(batch, encode).total, plain)
    assert all(0 <= token < TOKENS - 3 for token in _peaks(task, batch, encode))


def _peaks(task: Grounding, batch: Batch, encode: StubContext) -> list[int]:
    return [int(np.argmax(row["map"]["values"])) for row in task.predict(batch, encode)]


def test_a_sentence_is_nowhere_in_signals_with_another_finding() -> None:
    facts = [("lesion", "left"), ("lesion", "right"), ("lesion", "left"), ("ventricles", "large")]
    targets = [{"about": about, "finding": finding} for about, finding in facts]
    task = Grounding(**OPTIONS, finding="finding", negative_group="about")
    apart = task._negatives(batch_of(targets))
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[0, 1] = expected[1, 0] = expected[1, 2] = expected[2, 1] = True
    assert torch.equal(apart, expected)
    batch, encode = case([[0], [7], [3], [9]], targets)
    alone = task.loss(case([[0], [7], [3], [9]])[0], encode).total
    logits = task._logits(encode("scan"), encode)
    nowhere = F.softplus(logits).mean(-1)  # [sentences, signals]
    more = nowhere[0, 1] + (nowhere[1, 0] + nowhere[1, 2]) / 2 + nowhere[2, 1]
    torch.testing.assert_close(task.loss(batch, encode).total, alone + more / 2)


def test_a_share_of_the_studies_is_grounded_whole() -> None:
    task = Grounding(**OPTIONS, group="study", grounded_fraction=0.3)
    rows = [{"study": f"s{i // 4}"} for i in range(4000)]
    chosen = [row["grounded"] for row in prepare_batch(task, rows).references]
    assert all(len(set(chosen[i : i + 4])) == 1 for i in range(0, 4000, 4))
    assert 0.25 < sum(chosen) / 4000 < 0.35
    batch, encode = case([[0], [7]], [{"grounded": True}, {"grounded": False}])
    loss = task.loss(batch, encode)
    assert loss.count == 1
    loss.total.backward()
    grad = encode("scan").tokens.grad
    assert grad is not None and grad[0].any() and not grad[1].any()
    nobody = case([[0]], [{"grounded": False}])
    none = task.loss(*nobody)
    assert none.count == 0 and float(none.total.detach()) == 0 and none.total.requires_grad


def test_an_empty_mask_is_nowhere() -> None:
    batch, encode = case([[]])
    task = Grounding(**OPTIONS)
    loss = task.loss(batch, encode)
    logits = task._logits(encode("scan"), encode)[0, 0]
    torch.testing.assert_close(loss.total, F.softplus(logits).mean() / 2)
    (row,) = task.predict(batch, encode)
    assert (row["hit"], row["covered"], row["off"]) == (None, None, None)
    metrics = PointingMetrics()
    metrics.update([row], [{}])
    assert np.isnan(metrics.compute()["hit"])


def test_it_learns_to_point() -> None:
    chosen = [[0], [7], [13], [20]]
    batch, encode = case(chosen)
    task = Grounding(**OPTIONS)
    scan, sentence = encode("scan"), encode("said")
    free = [scan.tokens, sentence.pooled, *task.parameters()]
    assert sentence.pooled is not None
    optimizer = torch.optim.Adam([p for p in free if p is not None], lr=0.05)
    for _ in range(60):
        loss = task.loss(batch, encode)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    result = task.predict(batch, encode)
    assert _peaks(task, batch, encode) == [0, 7, 13, 20]
    metrics = task.metrics()
    metrics.update(result, batch.references)
    values = metrics.compute()
    assert values["hit"] == 1 and values["chance"] == pytest.approx(1 / TOKENS)
    assert values["off"] == pytest.approx(0, abs=1e-3) and values["rows"] == 4
    assert all(
        "map" not in row for row in task.format_predictions(result, batch.references, batch.keys)
    )


def test_it_predicts_without_a_mask() -> None:
    batch, encode = case([[0], [7]])
    batch.features = {}
    del encode.features["mask"]
    assert set(Grounding(**OPTIONS).predict(batch, encode)[0]) == {"peak", "score", "map"}


def test_a_map_lies_over_the_volume_that_was_read(tmp_path: Path) -> None:
    """Tokens that know where the lesion is: their map, written in the volume's own space, is
    brightest there."""
    row = Phantom(subjects=1, healthy=0.0, sequences=("T2w",), view="sentence", spacing=6.0)[0]
    encoder, masks = ViT3D(size=(32, 40, 32), patch=(8, 8, 8), dim=8, depth=1, heads=2), Mask()
    sample = encoder.processor.prepare(read(row["volume"]))
    result = encoder(**encoder.collate([sample]))
    mask = masks(**masks.collate([masks.processor.prepare(read_mask(row["sentence_mask"]))]))
    share = mask_coverage(mask, result, "it")
    assert 0 < float(share.sum()) < 8
    knowing = torch.stack([share - 0.1, torch.ones_like(share)], -1)
    features = {"scan": result.replace(tokens=knowing), "said": _said([1.0, 0.0]), "mask": mask}
    encode = StubContext(features)
    task = Grounding(input="scan", text="said", dim=2)
    batch = Batch("it", ["a"], [{}], features=features)
    (prediction,) = task.predict(batch, encode)
    assert prediction["hit"]
    low, high = torch.tensor(row["box"]()).split(3)
    peak = torch.tensor(prediction["peak"])
    assert ((low - 24 < peak) & (peak < high + 24)).all()  # half a token of 48 mm
    values, matrix = task.export_maps(prediction)["map"]
    source = read(row["volume"])
    save(tmp_path / "map.nii.gz", values, matrix, source)
    written = nibabel.load(tmp_path / "map.nii.gz")
    assert written.shape == tuple(source.meta["original_shape"])
    np.testing.assert_allclose(written.affine, source.meta["original_affine"], atol=1e-4)
    brightest = np.unravel_index(np.argmax(written.get_fdata()), written.shape)
    place = nibabel.affines.apply_affine(written.affine, brightest)
    assert np.abs(place - peak.numpy()).max() < 12


def _said(vector: list[float]) -> Features:
    pooled = torch.tensor([vector])
    return Features.dense(pooled[:, None], pooled=pooled)
