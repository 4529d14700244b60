"""NRRD and MetaImage, by SimpleITK."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ...base import ReadError

ITK = (".nrrd", ".nhdr", ".mha", ".mhd")


def is_itk(content: bytes) -> bool:
    """Return True for the bytes of an NRRD or MetaImage file."""
    return content.startswith((b"NRRD", b"ObjectType", b"NDims"))


def read_itk(source: Path | bytes, name: object = None) -> tuple[np.ndarray, np.ndarray]:
    """A path or the bytes of a file -> values and the affine to RAS in mm. Raise ReadError."""
    if isinstance(source, Path):
        return _read(source, source)
    with tempfile.TemporaryDirectory() as folder:  # SimpleITK reads files alone
        path = Path(folder) / ("volume.nrrd" if source.startswith(b"NRRD") else "volume.mha")
        path.write_bytes(source)
        return _read(path, name)


def _read(path: Path, name: object) -> tuple[np.ndarray, np.ndarray]:
    try:
        import SimpleITK
    except ModuleNotFoundError:
        raise ReadError(
            name, "SimpleITK is not installed", "it for NRRD and MHA: pip install 'sensorium[itk]'"
        ) from None
    try:
        image: Any = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        reason = next((ln for ln in reversed(str(error).splitlines()) if ln.strip()), "no reason")
        raise ReadError(name, f"cannot be read ({reason.strip()})", "a whole file") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise ReadError(name, "holds several values a voxel", "one grey value a voxel")
    size = image.GetDimension()
    if size < 3:
        raise ReadError(name, f"has {size} axes", "a volume with three")
    affine = np.eye(4)
    directions = np.array(image.GetDirection()).reshape(size, size)[:3, :3]
    affine[:3, :3], affine[:3, 3] = directions * image.GetSpacing()[:3], image.GetOrigin()[:3]
    affine[:2] *= -1  # ITK's world is LPS
    return SimpleITK.GetArrayFromImage(image).T, affine
