"""Small DICOM series, written for the tests of volumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

ORIENT = [1.0, 0, 0, 0, 1, 0]


def dataset(storage: str = MRImageStorage) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = storage
    data.SOPInstanceUID = generate_uid()
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    return data


def series(
    folder: Path,
    values: np.ndarray,
    *,
    orient: list[float] = ORIENT,
    uid: str | None = None,
    step: list[float] | None = None,
    start: tuple[float, float, float] = (-10.0, -20.0, 5.0),
    edit: Callable[[Dataset, int], None] | None = None,
    **tags: Any,
) -> Path:
    """`[I, J, K]` as slices with shuffled names, 2 x 1.5 mm in the plane, 3 mm apart.

    edit: changes the data set of slice `k`.
    """
    folder.mkdir(exist_ok=True)
    normal = np.cross(orient[:3], orient[3:])
    way = np.array(step) if step is not None else 3.0 * normal
    uid = uid or generate_uid()
    for k in range(values.shape[2]):
        data = dataset()
        data.SeriesInstanceUID, data.Modality = uid, "MR"
        data.Rows, data.Columns = values.shape[1], values.shape[0]
        data.ImageOrientationPatient = list(map(float, orient))
        data.ImagePositionPatient = [round(float(v), 6) for v in np.array(start) + k * way]
        data.PixelSpacing, data.InstanceNumber = [2.0, 1.5], 1
        data.PixelData = np.ascontiguousarray(values[:, :, k].T).tobytes()
        for name, value in tags.items():
            setattr(data, name, value)
        if edit is not None:
            edit(data, k)
        name = generate_uid()[-12:]
        data.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    return folder


def numbers(shape: tuple[int, ...] = (4, 5, 6)) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 1000, shape).astype(np.uint16)
