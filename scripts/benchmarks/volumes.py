"""Reading a compressed volume, against the readers of MONAI, nibabel and SimpleITK, in one run.

    python -m sensorium.scripts.benchmarks.volumes

A head of 160 x 192 x 160 voxels (the MNI152 template with noise, int16) is written as `.nii.gz`
and read by each; ours also turns it to RAS and checks its values. Then an epoch of a sample cache:
as read by the second epoch.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Annotated

import nibabel
import numpy as np
import SimpleITK
import torch
import typer
from monai.transforms import LoadImage

from sensorium.modalities.mri.io import read
from sensorium.modalities.mri.processor import VolumeProcessor
from sensorium.scripts.benchmarks.timing import interleaved_median, machine

SHAPE = (160, 192, 160)


def head(seed: int) -> nibabel.Nifti1Image:
    """Return a head with grain, as a scanner's file is: it compresses to about half."""
    from nilearn import datasets

    template = datasets.load_mni152_template(resolution=1)
    values = template.get_fdata()[: SHAPE[0], 20 : 20 + SHAPE[1], : SHAPE[2]]
    grain = np.random.default_rng(seed).normal(0, 20, SHAPE)
    return nibabel.Nifti1Image(
        (values / values.max() * 1000 + grain).clip(0).astype(np.int16), template.affine
    )


def main(
    rounds: Annotated[int, typer.Option(min=3, help="readings of each, taken in turn")] = 15,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Milliseconds of reading a `.nii.gz`, and as a ratio to the fastest peer."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "head.nii.gz"
        nibabel.save(head(seed), path)
        monai = LoadImage(image_only=True)
        readers = {
            "Sensorium": lambda: read(path),
            "MONAI": lambda: monai(path),
            "nibabel": lambda: nibabel.load(path).get_fdata(dtype=np.float32),
            "SimpleITK": lambda: SimpleITK.GetArrayFromImage(
                SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)
            ),
        }
        size = path.stat().st_size / 1e6
        print(f"{SHAPE} int16, {size:.1f} MB compressed; {machine()}; medians of {rounds}")
        times = interleaved_median(readers, rounds)
        fastest = min(value for name, value in times.items() if name != "Sensorium")
        print("\n| reader | ms | against the fastest peer |\n| --- | ---: | ---: |")
        for name, value in times.items():
            print(f"| {name} | {value * 1e3:.1f} | {value / fastest:.2f} |")
        prepare(path)


def prepare(path: Path) -> None:
    """What the sample cache spares: reading and preparing, against a row of a memory map."""
    processor = VolumeProcessor((96, 96, 96), (2.0, 2.0, 2.0))
    cached = path.with_suffix(".npy")
    np.save(cached, processor.prepare(read(path))["volume"].numpy())
    systems = {
        "read and prepare": lambda: processor.prepare(read(path)),
        "from a memory map": lambda: torch.from_numpy(np.array(np.load(cached, mmap_mode="r"))),
    }
    times = interleaved_median(systems, 5)
    line = ", ".join(f"{name} {value * 1e3:.1f} ms" for name, value in times.items())
    print(f"\nA sample of 96^3 at 2 mm: {line}")


if __name__ == "__main__":
    typer.run(main)
