"""The generated head: what is said of it is true of its voxels, and of nothing else."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sensorium.modalities.mri.io import read, read_mask
from sensorium.modalities.mri.phantom import SEQUENCES, Phantom
from sensorium.modalities.mri.phantom.anatomy import LOBES, anatomy
from sensorium.modalities.mri.phantom.signal_equations import Timing, signal
from sensorium.modalities.mri.phantom.simulate import mask
from sensorium.modalities.mri.write import box_of
from sensorium.testing.common import copy_for_worker

SMALL = {"subjects": 12, "spacing": 6.0}


@pytest.fixture(scope="module")
def studies() -> Phantom:
    return Phantom(view="study", healthy=0.3, **SMALL)


def with_lesion(source: Phantom) -> list[dict[str, Any]]:
    return [source[i] for i in range(len(source)) if source[i]["lesion"] == "yes"]


def test_signals_follow_the_equations() -> None:
    t1, t2, density = 680.0, 78.0, 0.70
    expected = density * (1 - math.exp(-500 / t1)) * math.exp(-12 / t2)
    assert signal("white", Timing(500, 12)) == pytest.approx(expected)
    nulled = -1 / math.log(0.5 * (1 + math.exp(-9000 / 4200))) ** -1 * 4200
    assert signal("fluid", Timing(9000, 120, nulled)) == pytest.approx(0, abs=1e-9)
    timings = SEQUENCES
    assert signal("fluid", timings["T1w"]) < signal("grey", timings["T1w"])
    assert signal("grey", timings["T1w"]) < signal("white", timings["T1w"])
    assert signal("white", timings["T2w"]) < signal("grey", timings["T2w"])
    assert signal("grey", timings["T2w"]) < signal("fluid", timings["T2w"])
    assert signal("fluid", timings["FLAIR"]) < signal("white", timings["FLAIR"])
    assert signal("white", timings["FLAIR"]) < signal("lesion", timings["FLAIR"])


@pytest.mark.slow
def test_rows_are_the_same_every_time_and_travel(studies: Phantom) -> None:
    again = copy_for_worker(Phantom(view="study", healthy=0.3, **SMALL))
    assert again.fingerprint() == studies.fingerprint()
    assert again.key(3) == studies.key(3)
    torch.testing.assert_close(read(again[3]["volume"]), read(studies[3]["volume"]))
    cell = copy_for_worker(studies[3]["volume"])
    torch.testing.assert_close(read(cell), read(studies[3]["volume"]))
    other = Phantom(view="study", healthy=0.3, seed=1, **SMALL)
    assert other.fingerprint() != studies.fingerprint()
    assert [other[i]["report"] for i in range(12)] != [studies[i]["report"] for i in range(12)]


@pytest.mark.slow
def test_splits_share_no_subject() -> None:
    splits = ("train", "validation", "test")
    rows = {s: Phantom(split=s, **SMALL) for s in splits}  # type: ignore[arg-type]
    facts = {s: {rows[s][i]["ventricle"] for i in range(len(rows[s]))} for s in splits}
    assert all(not facts[a] & facts[b] for a, b in itertools.combinations(splits, 2))


def test_a_volume_has_one_name_however_rows_are_cut() -> None:
    """So that it is simulated once for all recipes."""
    series, more = Phantom(**SMALL), Phantom(**{**SMALL, "subjects": 30})
    sentences = Phantom(**SMALL, view="sentence")
    for index in (0, 5, 11):
        for column in ("volume", "mask"):
            name = series.cell_key(index, column)
            assert name == more.cell_key(index, column) == sentences.cell_key(2 * index, column)
        assert sentences.cell_key(2 * index, "sentence_mask") == series.cell_key(index, "mask")
        assert sentences.cell_key(2 * index + 1, "sentence_mask") != series.cell_key(index, "mask")
    every = {series.cell_key(i, c) for i in range(len(series)) for c in ("volume", "mask")}
    assert len(every) == 2 * len(series)
    for changed in ({"seed": 7}, {"spacing": 11.0}, {"split": "test"}, {"healthy": 0.9}):
        other = Phantom(**{**SMALL, **changed})
        assert other.cell_key(0, "volume") != series.cell_key(0, "volume")


@pytest.mark.slow
def test_a_series_belongs_to_its_study() -> None:
    source = Phantom(**SMALL)
    assert len(source) == 12 * 4
    four = [source[i] for i in range(4)]
    assert [row["sequence"] for row in four] == list(SEQUENCES)
    for fact in ("report", "side", "region", "size_mm", "ventricle", "study", "capsule"):
        assert len({row[fact] for row in four}) == 1
    assert all(row["description"].endswith(row["report"]) for row in four)
    assert all(row["sequence"] in row["description"] for row in four)


def test_a_row_says_its_facts_without_a_scan(
    studies: Phantom, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("was simulated")

    monkeypatch.setattr("sensorium.modalities.mri.phantom.phantom.scan", refuse)
    assert set(studies[0]) == set(studies.columns)


def test_lesions_lie_where_the_report_says(studies: Phantom) -> None:
    result = with_lesion(studies)
    assert len(result) >= 5
    for row in result:
        volume, mask = read(row["volume"]), read_mask(row["mask"])
        assert volume.shape[1:] == mask.shape[1:] and torch.equal(volume.affine, mask.affine)
        middle = mask[0].nonzero().double().mean(0)
        place = mask.affine[:3, :3] @ middle + mask.affine[:3, 3]
        assert (float(place[0]) > 0) == (row["side"] == "right")
        assert f"{row['side']} {row['region']}" in row["report"]
        assert f"{round(row['size_mm'])} mm" in row["report"]
        box = row["box"]()
        assert box == pytest.approx(box_of(mask[0] > 0, mask.affine).tolist())
        voxel = float(mask.pixdim.prod())
        diameter = (6 / math.pi * float(mask.sum()) * voxel) ** (1 / 3)
        assert diameter == pytest.approx(row["size_mm"], rel=0.35)


def test_sentences_know_their_masks(studies: Phantom) -> None:
    row = with_lesion(studies)[0]
    about = {s["text"]: s["mask"] for s in row["sentences"]}
    lesion = next(mask for text, mask in about.items() if "lesion" in text)
    torch.testing.assert_close(read_mask(lesion), read_mask(row["mask"]))
    ventricles = next(mask for text, mask in about.items() if "entricles" in text)
    assert bool(read_mask(ventricles).any())
    assert " ".join(about) == row["description"]


def test_every_lobe_has_places_apart_from_the_others() -> None:
    places = anatomy(2).places
    assert set(places) == set(LOBES) and all(len(result) for result in places.values())
    for lobe, result in places.items():
        rest = np.concatenate([p for name, p in places.items() if name != lobe])
        apart = np.linalg.norm(result[:, None] - rest[None], axis=-1)
        assert apart.min() > 6 and result[:, 0].min() > 8


@pytest.mark.slow
def test_the_ventricle_target_is_in_the_voxels_beyond_the_heads_size() -> None:
    """Regress the ventricles' share of the head on the target, the scale held constant."""
    source = Phantom(subjects=24, view="study", sequences=("T1w",), spacing=4.0, healthy=1.0)
    shares, targets, scales = [], [], []
    for index in range(len(source)):
        row = source[index]
        volume = read(row["volume"])
        lake = next(s["mask"] for s in row["sentences"] if "entricles" in s["text"])
        shares.append(float(read_mask(lake).sum()) * float(volume.pixdim.prod()))
        targets.append(row["ventricle"])
        scales.append(row["volume"].subject.scale)
    design = np.stack([np.ones(24), scales], 1)
    rest = [np.array(v) - design @ np.linalg.lstsq(design, np.array(v), rcond=None)[0]
            for v in (shares, targets)]  # fmt: skip
    assert np.corrcoef(*rest)[0, 1] > 0.8


def test_spacing_and_shape_tell_nothing_of_labels() -> None:
    """Drawn from generators of their own: mean spacings of the two sides do not differ."""
    source = Phantom(subjects=400, view="study", healthy=0.0)
    sides: dict[str, list[float]] = {"left": [], "right": []}
    for index in range(len(source)):
        row = source[index]
        sides[row["side"]].append(float(np.prod(row["volume"].grid.shape)))
    left, right = (np.array(v) for v in sides.values())
    error = math.hypot(left.std() / len(left) ** 0.5, right.std() / len(right) ** 0.5)
    assert abs(left.mean() - right.mean()) < 4 * error
    assert 150 < len(left) < 250


def test_a_flipped_affine_is_seen_by_the_capsule_and_the_shape(studies: Phantom) -> None:
    rows = [studies[i] for i in range(len(studies))]
    assert {row["capsule"] for row in rows} == {True, False}
    assert not any("capsule" in row["description"] for row in rows)
    row = next(row for row in rows if row["capsule"] and row["lesion"] == "no")
    volume = read(row["volume"])
    axis = volume.affine[0, 0] * torch.arange(volume.shape[1]) + volume.affine[0, 3]
    outside = volume[0] * (axis.abs() > 73)[:, None, None]
    assert float(axis[outside.flatten(1).amax(1).argmax()]) > 0
    turned = volume[0].flip(0)
    body = volume[0] > 150
    apart = float((volume[0] - turned).abs()[body].mean() / volume[0][body].mean())
    assert apart > 0.1  # the template itself equals its mirror


def test_flip_lr_mirrors_what_is_seen_and_what_is_said() -> None:
    options = {"subjects": 30, "view": "study", "healthy": 0.0, "spacing": 6.0}
    plain, source = Phantom(**options), Phantom(flip_lr=True, **options)
    rows = [source[i] for i in range(len(source))]
    mirrored = [row for row in rows if row["volume"].subject.mirrored]
    assert 5 < len(mirrored) < 25
    for row in mirrored[:4]:
        mask = read_mask(row["mask"])
        place = mask.affine[:3, :3] @ mask[0].nonzero().double().mean(0) + mask.affine[:3, 3]
        assert (float(place[0]) > 0) == (row["side"] == "right")
        assert f"{row['side']} {row['region']}" in row["report"]
    assert not any(plain[i]["volume"].subject.mirrored for i in range(30))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"sequences": ("T3w",)}, "sequences: found T3w, expected some of T1w"),
        ({"subjects": 0}, "subjects, spacing: found 0"),
        ({"healthy": 1.5}, "healthy: found 1.5"),
    ],
)
def test_options_are_checked(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        Phantom(**options)


def test_make_phantom_writes_what_the_readers_read(tmp_path: Path) -> None:
    import typer

    from sensorium.scripts.examples.make_phantom import main

    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, ["--out", str(tmp_path), "--subjects", "1", "--spacing", "8"])
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader((tmp_path / "studies.csv").open()))
    assert [row["sequence"] for row in rows] == list(SEQUENCES)
    for row in rows:
        image, series = read(tmp_path / row["volume"]), read(tmp_path / row["dicom"])
        np.testing.assert_array_equal(image.numpy(), series.numpy())
        np.testing.assert_allclose(image.affine.numpy(), series.affine.numpy(), atol=1e-4)
        assert nibabel.aff2axcodes(image.affine.numpy()) == ("R", "A", "S")
    folder = (tmp_path / rows[0]["dicom"]).parent
    assert read({"path": folder, "series": "FLAIR"}).shape == image.shape


def test_masks_are_those_of_the_scan_that_they_do_not_wait_for() -> None:
    for index in range(8):
        cell = Phantom(subjects=8)[index]["volume"]
        whole = cell.scan()
        for what in ("lesion", "ventricles"):
            result = mask(what, cell.subject, cell.grid, cell.seed)
            assert torch.equal(result, getattr(whole, what)), what
