"""Volumes: files of NIfTI, DICOM, NRRD and MetaImage -> MONAI's `MetaTensor [C, X, Y, Z]`, RAS.

Legend: `C` channels (co-registered contrasts, or the volumes of a series), `X Y Z` voxels
towards right, anterior, superior. The affine takes voxel indices to mm.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.spatialimages import SpatialImage

from ...base import ReadError
from .dicom import dicom
from .nifti import looks_like, nifti
from .orientation import oriented

ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
NIFTI = (".nii", ".nii.gz")
KEYS = {"path", "bytes", "array", "affine", "volume", "series"}
CLOSE = 1e-3
"""mm by which the corners of co-registered contrasts may differ, a voxel of the first."""

Found = tuple[np.ndarray, np.ndarray]
"""Values `[X, Y, Z]` or `[X, Y, Z, N]` in the file's own orientation, and their affine."""


def read(source: Any) -> MetaTensor:
    """One volume, float32 `[C, X, Y, Z]`, axes nearest to RAS, affine and spacing kept.

    source: a path (NIfTI, NRRD, MHA, a folder or zip of one DICOM series), the bytes of a NIfTI
    file, a nibabel image, a MetaTensor, `{array, affine}`, or a function that gives one of
    these. A list is several co-registered contrasts, None where one is absent: its channel is
    zero and `meta["contrasts"]` False.

    A mapping `{path, volume, series}` says which part is meant: `volume: 3` of a 4-D file, or
    `volume: channels` for all of them; `series: T2w` of a folder with several. Raises ReadError.
    """
    if callable(source) and not isinstance(source, (MetaTensor, torch.Tensor)):
        source = source()
    if isinstance(source, MetaTensor):
        return _again(source)
    if isinstance(source, (list, tuple)):
        return _contrasts(source)
    said = dict(source) if isinstance(source, Mapping) else {}
    if unknown := said.keys() - KEYS:
        raise ReadError(
            source, f"has the keys {', '.join(sorted(map(str, unknown)))}", ", ".join(sorted(KEYS))
        )
    values, affine = _values(source, said)
    named = said.get("path", source)
    return oriented(_channels(values, said.get("volume"), named), affine, named)


def _values(source: Any, said: Mapping[str, Any]) -> Found:
    if "array" in said:
        if said.get("affine") is None:
            raise ReadError(said["array"], "an array alone does not say where it lies", "an affine")
        return _numbers(said["array"]), _numbers(said["affine"]).astype(np.float64)
    content = said.get("path", said.get("bytes", source))
    if isinstance(content, SpatialImage):
        return np.asarray(content.dataobj), np.array(content.affine, dtype=np.float64)
    if isinstance(content, (bytes, bytearray)):
        return nifti(bytes(content), content)
    if hasattr(content, "read"):
        return nifti(content.read(), content)
    if isinstance(content, (str, Path)):
        return _file(Path(content), said.get("series"))
    raise ReadError(
        source, f"is a {type(source).__name__}", "a path, bytes, {array, affine} or a MetaTensor"
    )


def _file(path: Path, series: Any) -> Found:
    name = path.name.lower()
    if not path.exists():
        raise ReadError(path, "there is no such file", "a file or a folder")
    if path.is_dir():
        return dicom(sorted(p for p in path.rglob("*") if p.is_file()), path, series)
    if name.endswith(ITK):
        return _itk(path)
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError as error:
        raise ReadError(path, f"cannot be opened ({error.strerror})", "a readable file") from None
    if head[128:] == b"DICM":
        return dicom([path], path, series)
    if name.endswith(NIFTI) or looks_like(head):
        return nifti(path.read_bytes(), path)
    if zipfile.is_zipfile(path):
        return _zip(path, series)
    raise ReadError(path, "is no volume that is known", "NIfTI, DICOM, NRRD, MHA, or a zip")


def _zip(path: Path, series: Any) -> Found:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(n for n in archive.namelist() if not n.endswith("/"))
            whole = {name: archive.read(name) for name in names}
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise ReadError(path, f"the archive is damaged ({error})", "a whole zip") from None
    images = [name for name in names if name.lower().endswith(NIFTI)]
    if len(images) == 1:
        return nifti(whole[images[0]], path)
    return dicom([io.BytesIO(content) for content in whole.values()], path, series)


def _itk(path: Path) -> Found:
    try:
        import SimpleITK
    except ModuleNotFoundError:
        raise ReadError(
            path, "SimpleITK is not installed", "it for NRRD and MHA: pip install 'sensorium[itk]'"
        ) from None
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        reason = next(line for line in reversed(str(error).splitlines()) if line.strip())
        raise ReadError(path, f"cannot be read ({reason.strip()})", "a whole file") from None
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise ReadError(path, "holds several values a voxel", "one grey value a voxel")
    size = image.GetDimension()
    affine = np.eye(4)
    turn = np.array(image.GetDirection()).reshape(size, size)[:3, :3]
    edges = image.GetSpacing()[:3]
    if size < 3:
        raise ReadError(path, f"has {size} axes", "a volume with three")
    affine[:3, :3], affine[:3, 3] = turn * edges, image.GetOrigin()[:3]
    affine[:2] *= -1  # ITK's world is LPS
    return SimpleITK.GetArrayFromImage(image).T, affine


def _channels(values: np.ndarray, volume: Any, source: object) -> np.ndarray:
    """`[X, Y, Z]` or `[X, Y, Z, N]` -> `[C, X, Y, Z]`, as `volume` says."""
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 3:
        return values[None]
    if values.ndim != 4:
        raise ReadError(source, f"has {values.ndim} axes {values.shape}", "three, or four")
    count = values.shape[3]
    if volume == "channels":
        return np.moveaxis(values, 3, 0)
    if isinstance(volume, int) and -count <= volume < count:
        return values[None, ..., volume]
    found = f"asks for volume {volume!r} of {count}" if volume is not None else ""
    raise ReadError(
        source,
        found or f"holds {count} volumes, shape {values.shape}",
        f"{{path: ..., volume: 0}} (to {count - 1}), or volume: channels for all",
    )


def _contrasts(sources: Sequence[Any]) -> MetaTensor:
    """Several volumes on one grid as channels; None where one is absent."""
    found = [None if s is None else read(s) for s in sources]
    there = [volume for volume in found if volume is not None]
    if not there:
        raise ReadError(sources, "none of its contrasts is there", "one volume at least")
    first = there[0]
    for source, volume in zip(sources, found, strict=True):
        if volume is not None:
            _check_same_grid(first, volume, source)
    blank = torch.zeros_like(first.as_tensor()[:1])
    parts = [blank if v is None else v.as_tensor() for v in found]
    present = tuple(v is not None for v in found for _ in range(1 if v is None else len(v)))
    meta = {k: v for k, v in first.meta.items() if k != "affine"} | {"contrasts": present}
    return MetaTensor(torch.cat(parts), first.affine, meta)


def _check_same_grid(first: MetaTensor, other: MetaTensor, source: object) -> None:
    shape, wanted = tuple(other.shape[1:]), tuple(first.shape[1:])
    if shape != wanted:
        raise ReadError(
            source, f"has the shape {shape}, the first contrast {wanted}", "contrasts on one grid"
        )
    corners = torch.tensor([[0, 0, 0, 1], [*(n - 1 for n in wanted), 1]], dtype=torch.float64)
    apart = float(((other.affine - first.affine) @ corners.T)[:3].abs().max())
    if apart > CLOSE * float(first.pixdim.max()):
        raise ReadError(
            source, f"lies up to {apart:.3g} mm from the first contrast", "contrasts on one grid"
        )


def _again(source: MetaTensor) -> MetaTensor:
    if source.ndim != 4:
        raise ReadError(source, f"has {source.ndim} axes", "a MetaTensor [C, X, Y, Z]")
    present = tuple(source.meta.get("contrasts", ()))
    made = oriented(source.as_tensor().numpy(), source.affine.numpy(), source, present)
    kept = {k: source.meta[k] for k in ("original_affine", "original_shape") if k in source.meta}
    made.meta.update(kept)
    return made


def _numbers(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def read_mask(source: Any) -> MetaTensor:
    """A mask `[1, X, Y, Z]` of zeros and ones (anything above 0 counts), as `read` otherwise; it
    may be empty or full."""
    if callable(source) and not isinstance(source, (MetaTensor, torch.Tensor)):
        source = source()
    if isinstance(source, MetaTensor):
        values, affine = source.as_tensor()[0].numpy(), source.affine.numpy()
    else:
        values, affine = _values(source, dict(source) if isinstance(source, Mapping) else {})
    marked = _channels(values, None, source) > 0
    return oriented(marked, affine, source, flat=True)


def example(rng: np.random.Generator) -> MetaTensor:
    """A volume as scanners give them, for dry runs and tests."""
    values = rng.uniform(0, 100, (1, 20, 22, 18)).astype(np.float32)
    return oriented(values, np.diag([4.0, 4.0, 4.0, 1.0]), "example")
