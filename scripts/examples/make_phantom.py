"""Write generated heads as a tree of NIfTI files, and as DICOM series.

python -m sensorium.scripts.examples.make_phantom --out phantoms --subjects 4

phantoms/studies.csv                        a row a series: its files and labels
phantoms/sub-00000/anat/sub-00000_T1w.nii.gz, ..._mask.nii.gz, ..._report.txt
phantoms/dicom/sub-00000/T1w/*.dcm          one series a folder, with its tags
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any

import nibabel
import numpy as np
import typer
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from sensorium.modalities.mri.io import read, read_mask
from sensorium.modalities.mri.phantom import SEQUENCES, Phantom

FACTS = ("sequence", "side", "region", "size_mm", "ventricle", "capsule", "subject")


def main(
    out: Annotated[Path, typer.Option(help="the folder to write")],
    subjects: Annotated[int, typer.Option(min=1, help="how many")] = 4,
    spacing: Annotated[float, typer.Option(help="mm, about")] = 4.0,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Write generated heads as NIfTI and DICOM."""
    source = Phantom(subjects=subjects, spacing=spacing, seed=seed)
    rows = []
    for index in range(len(source)):
        row = source[index]
        name, sequence = f"sub-{row['subject'].rpartition('-')[2]}", row["sequence"]
        folder = out / name / "anat"
        folder.mkdir(parents=True, exist_ok=True)
        volume, mask = read(row["volume"]), read_mask(row["mask"])
        stem = folder / f"{name}_{sequence}"
        affine = volume.affine.numpy()
        values = np.rint(volume[0].numpy()).clip(0, 32767).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, affine), f"{stem}.nii.gz")
        lesion = mask[0].numpy().astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(lesion, affine), f"{stem}_mask.nii.gz")
        Path(f"{stem}_report.txt").write_text(row["description"] + "\n", encoding="utf-8")
        series = out / "dicom" / name / sequence
        write_series(series, values, affine, patient=name, sequence=sequence)
        facts = {fact: row[fact] for fact in FACTS}
        places = {"volume": f"{stem.relative_to(out)}.nii.gz", "dicom": series.relative_to(out)}
        rows.append(facts | places | {"report": row["report"]})
    with (out / "studies.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    print(f"{len(rows)} series of {subjects} subjects in {out}")


def write_series(
    folder: Path, values: np.ndarray, affine: np.ndarray, *, patient: str, sequence: str
) -> None:
    """`[X, Y, Z]` int16 as one MR series, a file a slice; names do not show the order."""
    folder.mkdir(parents=True, exist_ok=True)
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # DICOM's world is LPS
    edges = np.linalg.norm(matrix[:3, :3], axis=0)
    turn = matrix[:3, :3] / edges
    timing, uid, study = SEQUENCES[sequence], generate_uid(), generate_uid()
    for k in range(values.shape[2]):
        data = _empty()
        data.PatientID, data.StudyInstanceUID, data.SeriesInstanceUID = patient, study, uid
        data.Modality, data.SeriesDescription, data.ProtocolName = "MR", sequence, sequence
        data.SeriesNumber = list(SEQUENCES).index(sequence) + 1
        data.InstanceNumber = k + 1
        data.ImageType = ["ORIGINAL", "PRIMARY", "M", "SE" if timing.ti is None else "IR"]
        data.RepetitionTime, data.EchoTime = timing.tr, timing.te
        if timing.ti is not None:
            data.InversionTime = timing.ti
        data.Rows, data.Columns = values.shape[1], values.shape[0]
        data.PixelSpacing = [f"{edges[1]:.8g}", f"{edges[0]:.8g}"]
        data.SliceThickness = f"{edges[2]:.8g}"
        data.ImageOrientationPatient = [f"{v:.8f}" for v in (*turn[:, 0], *turn[:, 1])]
        place = matrix @ [0, 0, k, 1]
        data.ImagePositionPatient = [f"{v:.8g}" for v in place[:3]]
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.PixelData = np.ascontiguousarray(values[:, :, k].T).tobytes()
        data.save_as(folder / f"{data.SOPInstanceUID[-16:]}.dcm", enforce_file_format=True)


def _empty() -> Any:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = MRImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    return data


if __name__ == "__main__":
    typer.run(main)
