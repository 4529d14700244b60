"""Heads on a frozen encoder of volumes: from its cache, scored in the source's space, as files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import nibabel
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sensorium.engine.checkpoint import load_model
from sensorium.engine.evaluation import evaluate
from sensorium.engine.inference import load, predict_files
from sensorium.engine.model import build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import train
from sensorium.engine.utils import ConfigError
from sensorium.modalities.mri.encoders.vit3d import ViT3D
from sensorium.modalities.mri.io import read_mask
from sensorium.modalities.mri.write import box_of

SIZES: dict[str, Any] = {
    "size": [16, 16, 16], "patch": [4, 4, 4], "dim": 12, "depth": 2, "heads": 2, "crop": False
}  # fmt: skip
LPS = np.diag([-2.0, -2.0, 2.0, 1.0])


def written(folder: Path, count: int = 6) -> Path:
    """Volumes of several shapes and orientations with a bright cube, its mask and its box."""
    rng, lines = np.random.default_rng(0), []
    for index in range(count):
        shape = (16, 16, 14 + 2 * (index % 2))
        values, mask = rng.uniform(40, 60, shape), np.zeros(shape, np.uint8)
        low = rng.integers(2, 8, 3)
        cube = tuple(slice(int(a), int(a) + 5) for a in low)
        mask[cube] = index != 1  # one has no lesion
        values[cube] += 100 * mask[cube]
        affine = LPS if index % 3 else np.diag([2.0, 2.0, 2.0, 1.0])
        paths = {name: folder / f"{index}_{name}.nii.gz" for name in ("volume", "mask")}
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), paths["volume"])
        nibabel.save(nibabel.Nifti1Image(mask, affine), paths["mask"])
        drawn = read_mask(paths["mask"])
        box = box_of(drawn.as_tensor()[0], drawn.affine)
        row = {k: str(v) for k, v in paths.items()} | {"box": None if box is None else box.tolist()}
        lines.append(json.dumps(row))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "rows.jsonl"


def recipe(rows: Path, **changes: Any) -> dict[str, Any]:
    data = {split: {"source": "json", "path": str(rows)} for split in ("train", "test")}
    weights = rows.with_name("encoder.safetensors")
    built: dict[str, Any] = {
        "inputs": {
            "volume": {
                "modality": "mri",
                "encoder": {
                    "type": "vit3d",
                    **SIZES,
                    "weights": str(weights),
                    "freeze": True,
                },
            },
            "mask": {"modality": "mri_mask", "encoder": {"type": "mask", "freeze": True}},
        },
        "tasks": {
            "shape": {
                "type": "segmentation",
                "input": "volume",
                "head": {"type": "unetr", "ups": 2, "width": 12, "layers": [0]},
                "data": data,
            },
            "place": {
                "type": "localization",
                "input": "volume",
                "head": {"type": "detr", "queries": 2, "width": 12},
                "data": data,
            },
        },
        "train": {"steps": 6, "batch_size": 3, "log_every": 1, "optimizer": {"lr": 1e-2}},
    }
    return built | changes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of volumes, and a run on them."""
    folder = tmp_path_factory.mktemp("volumes")
    rows = written(folder)
    torch.manual_seed(0)
    save_file(ViT3D(**SIZES).state_dict(), folder / "encoder.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        train(parse_recipe(recipe(rows)), folder / "run", show=False)
    return rows, folder / "run"


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
def test_from_the_cache_the_losses_are_the_same(run: tuple[Path, Path], tmp_path: Path) -> None:
    """Hidden layers and masks of different shapes are kept too."""
    rows, folder = run
    train(parse_recipe(recipe(rows, cache={"features": False})), tmp_path / "run", show=False)
    assert losses(folder)
    np.testing.assert_allclose(losses(folder), losses(tmp_path / "run"), rtol=1e-5, atol=1e-5)


def test_an_encoder_of_a_file_is_kept_in_the_run(run: tuple[Path, Path], tmp_path: Path) -> None:
    """The run is that of its own encoder, whatever becomes of the file."""
    folder, weights = run[1], run[1].parent / "encoder.safetensors"
    tensors = load_file(folder / "model.safetensors")
    known = load_file(weights)
    prefix = "streams.volume.encoder."
    encoder = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    assert set(encoder) == set(known)
    assert all(name.startswith(("tasks.", prefix)) for name in tensors)
    weights.rename(tmp_path / "moved")
    try:
        loaded = load_model(folder).stream("volume").encoder.state_dict()
    finally:
        (tmp_path / "moved").rename(weights)
    torch.testing.assert_close(loaded, known, rtol=0, atol=0)


def test_heads_are_kilobytes_and_refuse_another_encoder_of_the_hub(
    run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = tmp_path / "published"
    shutil.copytree(run[1], published)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(published))
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    values = recipe(run[0])
    values["inputs"]["volume"]["encoder"]["weights"] = "hf-hub:org/it"
    folder = tmp_path / "run"
    train(parse_recipe(values), folder, show=False)
    names = load_file(folder / "model.safetensors")
    assert names and all(name.startswith("tasks.") for name in names)
    assert (folder / "model.safetensors").stat().st_size < 100_000
    tensors = load_file(published / "model.safetensors")
    save_file({name: tensor + 1e-3 for name, tensor in tensors.items()},
              published / "model.safetensors")  # fmt: skip
    with pytest.raises(ConfigError, match=r"inputs\.volume\.encoder: the run was trained on"):
        load_model(folder)


def test_scores_are_of_every_row(run: tuple[Path, Path]) -> None:
    result = evaluate(load_model(run[1]))
    assert set(result["shape"]) >= {"dice", "hd95", "missed", "false_alarms", "batch_gap"}
    assert not any("mask_shuffled" in name for name in result["shape"])
    assert set(result["place"]) >= {"iou", "giou", "box_hit", "centre_error", "auroc"}
    for task in ("shape", "place"):
        assert result[task]["batch_gap"] == pytest.approx(0, abs=1e-4)


def test_a_mask_is_written_in_the_source_s_own_space(run: tuple[Path, Path]) -> None:
    rows, folder = run
    files = [json.loads(line)["volume"] for line in rows.read_text().splitlines()][:2]
    out = folder.parent / "out"
    written_rows = list(predict_files(load(folder), files, task="shape", options={}, folder=out))
    for file, row in zip(files, written_rows, strict=True):
        source, mask = nibabel.load(file), nibabel.load(row["prediction"]["mask"])
        assert mask.shape == source.shape
        np.testing.assert_allclose(mask.affine, source.affine)
        values = np.asarray(mask.dataobj)
        assert set(np.unique(values)) <= {0, 1}
        # Voxels of the sample are those of the source here, wherever the file begins.
        assert values.sum() * 8 == pytest.approx(row["prediction"]["size"], rel=0.2, abs=100)
        assert "scores" not in row["prediction"]
    names = sorted(path.name for path in out.iterdir())
    assert names == ["0_volume_mask.nii.gz", "1_volume_mask.nii.gz"]
    numbers = list(predict_files(load(folder), files[:1], task="shape", options={}))
    assert set(numbers[0]["prediction"]["mask"]) == {"grid", "affine", "runs"}


@pytest.mark.slow
def test_large_volumes_are_learned_and_segmented_by_windows(
    run: tuple[Path, Path], tmp_path: Path
) -> None:
    built = recipe(run[0])
    del built["tasks"]["place"]
    built["tasks"]["shape"]["window"] = [8, 8, 8]
    built["inputs"]["volume"]["encoder"]["size"] = [24, 16, 16]
    built["inputs"]["volume"]["encoder"]["weights"] = "none"
    train(parse_recipe(built), tmp_path / "run", show=False)
    assert len(losses(tmp_path / "run")) == 6
    model = load_model(tmp_path / "run")
    result = evaluate(model)["shape"]
    assert 0 <= result["dice"] <= 1 and result["batch_gap"] == pytest.approx(0, abs=1e-4)
    file = json.loads(run[0].read_text().splitlines()[0])["volume"]
    mask = load(tmp_path / "run").generate("shape", volume=file)["mask"]
    assert mask["grid"] == [24, 16, 16]


def test_layers_of_an_encoder_that_has_none_are_refused(tmp_path: Path) -> None:
    built = recipe(tmp_path / "rows.jsonl")
    built["inputs"]["volume"]["encoder"] = {"type": "monai", "name": "resnet18", "freeze": True}
    built["inputs"]["volume"]["encoder"]["size"] = [32, 32, 32]
    with pytest.raises(ConfigError, match=r"tasks\.shape\.head: needs hidden layers"):
        build(parse_recipe(built))
