"""Compressed volumes are inflated once, for an encoder that trains too."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest

from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import train
from sensorium.modalities.mri.io import nifti


def written(folder: Path, count: int = 4) -> Path:
    rng = np.random.default_rng(0)
    with (folder / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["volume", "kind"])
        for index in range(count):
            path = folder / f"{index}.nii.gz"
            values = rng.uniform(0, 100, (8, 8, 8)).astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
            table.writerow([str(path), ["even", "odd"][index % 2]])
    return folder / "rows.csv"


@pytest.mark.parametrize("freeze", [False, True])
def test_the_second_epoch_reads_no_gzip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, freeze: bool
) -> None:
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    inflated: list[int] = []
    original = nifti.inflate

    def counted(content: bytes, source: object) -> bytes:
        inflated.append(len(content))
        return original(content, source)

    monkeypatch.setattr(nifti, "inflate", counted)
    encoder = {"type": "vit3d", "size": [8, 8, 8], "patch": [4, 4, 4], "dim": 8, "depth": 1}
    recipe = {
        "inputs": {
            "volume": {"modality": "mri", "encoder": {**encoder, "heads": 1, "freeze": freeze}}
        },
        "tasks": {
            "kind": {
                "type": "classification",
                "input": "volume",
                "target": "kind",
                "data": {"train": {"source": "csv", "path": str(written(tmp_path))}},
            }
        },
        "train": {"steps": 6, "batch_size": 2, "log_every": 3},  # three epochs
        "cache": {"samples": True},
    }
    train(parse_recipe(recipe), tmp_path / "run", show=False)
    assert len(inflated) == 4
    train(parse_recipe(recipe), tmp_path / "again", show=False)
    assert len(inflated) == 4
