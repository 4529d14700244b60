"""Volumes: files of NIfTI, DICOM, NRRD and MetaImage -> MONAI's `MetaTensor [C, X, Y, Z]`, RAS.

Every source, on disk or in memory, goes one way: to the values and the affine of the file
(`Volume`), then through the same checks, `volume`, and orientation.

Legend: `C` channels (co-registered contrasts, or the volumes of a series), `X Y Z` voxels
towards right, anterior, superior. The affine takes voxel indices to mm.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.spatialimages import SpatialImage

from ...base import ReadError, only_read_errors
from .collection import folder_members, single_volume, zip_members
from .dicom import Member, read_dicom
from .itk import ITK, is_itk, read_itk
from .nifti import check_dtype, looks_like_nifti, read_image, read_nifti, read_pair
from .orientation import oriented

VOLUME = "a volume: NIfTI, DICOM, NRRD or MetaImage"
KEYS = {"path", "bytes", "array", "affine", "volume", "series"}
CLOSE = 1e-3
"""mm by which the corners of co-registered contrasts may differ, a voxel of the first."""

Volume = tuple[np.ndarray, np.ndarray]
"""Values `[X, Y, Z]` or `[X, Y, Z, N]` in the file's own orientation, and their affine."""


@only_read_errors(VOLUME)
def read(source: Any) -> MetaTensor:
    """Return one volume, float32 `[C, X, Y, Z]`, axes nearest to RAS, affine and spacing kept.

    source: a path (NIfTI, also as a `.hdr`/`.img` pair, NRRD, MHA, a folder or zip of one of
    these or of DICOM files), the bytes or a file object of such a file, a nibabel image, a
    MetaTensor, `{array, affine}`, or a function that returns one of these. A list is several
    co-registered contrasts, None where one is absent: its channel is zero and
    `meta["contrasts"]` False.

    A mapping `{path, bytes, volume, series}` selects a part: `volume: 3` of a 4-D file,
    or `volume: channels` for all of them; `series` of a folder with several, by its number, UID
    or whole name (`T2*` for names that begin so). Where there are `bytes`, `path` is only their
    name. Raise ReadError.
    """
    source = _called(source)
    if isinstance(source, MetaTensor):
        return _reoriented(source)
    if isinstance(source, (list, tuple)):
        return _contrasts(source)
    values, affine, name = _selected(source)
    return oriented(values, affine, name)


@only_read_errors(VOLUME)
def read_mask(source: Any) -> MetaTensor:
    """Return a mask `[1, X, Y, Z]` of zeros and ones (anything above 0 counts), of the same sources
    as `read`; it may be empty or full. Raise ReadError, also for several volumes."""
    values, affine, name = _selected(_called(source))
    if len(values) != 1:
        raise ReadError(name, f"holds {len(values)} volumes", "one mask: volume: <number>")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ReadError(name, "holds values that are not finite", "a mask of numbers")
    if values.dtype.kind in "if" and values.min() < 0:
        wrong = f"holds negative numbers, from {values.min():g} (255 in a signed byte is -1)"
        raise ReadError(name, wrong, "a mask: 0 outside, numbers above 0 inside")
    return oriented(values > 0, affine, name, flat=True)


def _called(source: Any) -> Any:
    """Return the result of a function; anything else unchanged."""
    function = callable(source) and not isinstance(source, (MetaTensor, torch.Tensor))
    return source() if function else source


def _selected(source: Any) -> tuple[np.ndarray, np.ndarray, object]:
    """Return the values `[C, X, Y, Z]`, affine and name of a source, at its `volume`."""
    cell = dict(source) if isinstance(source, Mapping) else {}
    if unknown := cell.keys() - KEYS:
        raise ReadError(
            source, f"has the keys {', '.join(sorted(map(str, unknown)))}", ", ".join(sorted(KEYS))
        )
    name = next((cell[k] for k in ("path", "bytes", "array") if cell.get(k) is not None), source)
    values, affine = _volume(source, cell, name)
    check_dtype(values.dtype, name)
    return _channels(values, cell.get("volume"), name), affine, name


def _volume(source: Any, cell: Mapping[str, Any], name: object) -> Volume:
    content, series = source, cell.get("series")
    if cell:
        keys = [key for key in ("array", "bytes", "path") if cell.get(key) is not None]
        if not keys:
            raise ReadError(source, "names no volume", "path, bytes or array")
        if keys[0] == "array" or cell.get("affine") is not None:
            return _array(cell, name)
        content = cell[keys[0]]
    if isinstance(content, MetaTensor):
        if content.ndim != 4:
            raise ReadError(content, f"has {content.ndim} axes", "a MetaTensor [C, X, Y, Z]")
        values = np.moveaxis(content.as_tensor().detach().cpu().numpy(), 0, 3)
        return values, content.affine.numpy().astype(np.float64)
    if isinstance(content, SpatialImage):
        return read_image(content, name)
    if isinstance(content, (bytes, bytearray, memoryview)):
        return _content(bytes(content), name, series)
    if hasattr(content, "read"):
        if hasattr(content, "seek"):
            content.seek(0)  # it may have been read before
        return _content(content.read(), name, series)
    if isinstance(content, (str, os.PathLike)):
        return _path(Path(content), series)
    raise ReadError(
        source, f"is a {type(content).__name__}", "a path, bytes, {array, affine} or a MetaTensor"
    )


def _array(cell: Mapping[str, Any], name: object) -> Volume:
    if cell.get("array") is None:
        raise ReadError(name, "has an affine beside a file", "an affine beside an array alone")
    array = cell["array"]
    if cell.get("affine") is None:
        if isinstance(array, (MetaTensor, SpatialImage)):
            return _volume(array, {}, name)
        raise ReadError(array, "an array alone has no position in space", "an affine")
    affine = _numpy(cell["affine"])
    if affine.dtype.kind not in "iuf":
        raise ReadError(name, f"has an affine of {affine.dtype} values", "numbers")
    return _numpy(array), affine.astype(np.float64)


def _numpy(value: Any) -> np.ndarray:
    if isinstance(value, MetaTensor):
        value = value.as_tensor()
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype == torch.bfloat16 else value
        return np.asarray(value.numpy())
    return np.asarray(value)


def _path(path: Path, series: Any) -> Volume:
    if not path.exists():
        raise ReadError(path, "there is no such file", "a file or a folder")
    if path.is_dir():
        return _collection(folder_members(path), path, series)
    if path.name.lower().endswith(ITK):
        return read_itk(path)
    try:
        with path.open("rb") as file:
            head = file.read(132)
        if pair := _pair(path):
            return read_pair(*pair, path)
        if head[128:] == b"DICM":
            return read_dicom([(str(path), path)], path, series)
        if looks_like_nifti(head):
            return read_nifti(path.read_bytes(), path)
        if zipfile.is_zipfile(path):
            return _collection(zip_members(path, path), path, series)
    except OSError as error:
        raise ReadError(path, f"cannot be opened ({error.strerror})", "a readable file") from error
    if path.name.lower().endswith((".nii", ".nii.gz")):
        raise ReadError(path, "it has no NIfTI header", ".nii or .nii.gz")
    raise ReadError(path, "is no volume that is known", "NIfTI, DICOM, NRRD, MHA, or a zip")


def _pair(path: Path) -> tuple[Path, Path] | None:
    """Return the header and the image of a pair that `path` is one of; None for other files."""
    name, zipped = path.name, ""
    if name.lower().endswith(".gz"):
        name, zipped = name[:-3], name[-3:]
    stem, end = name[:-4], name[-4:]
    if end.lower() not in (".hdr", ".img"):
        return None
    other = {".hdr": ".img", ".img": ".hdr", ".HDR": ".IMG", ".IMG": ".HDR"}.get(end)
    if other is None or not (partner := path.with_name(stem + other + zipped)).is_file():
        raise ReadError(path, "is one half of a pair, without the other", "both .hdr and .img")
    return (path, partner) if end.lower() == ".hdr" else (partner, path)


def _content(content: bytes, name: object, series: Any) -> Volume:
    """Return the bytes of a file, detected by content; as `_path` otherwise."""
    if content[128:132] == b"DICM":
        return read_dicom([(_label(name), content)], name, series)
    if is_itk(content):
        return read_itk(content, name)
    if not looks_like_nifti(content[:4]) and zipfile.is_zipfile(io.BytesIO(content)):
        members = zip_members(Path(), _label(name), io.BytesIO(content))
        return _collection(members, name, series)
    return read_nifti(content, name)


def _label(name: object) -> str:
    return str(name) if isinstance(name, (str, os.PathLike)) else "its bytes"


def _collection(members: list[Member], source: object, series: Any) -> Volume:
    single = single_volume(members, source, series)
    if single is None:
        return read_dicom(members, source, series)
    name, content = single
    if isinstance(content, Path):
        return _path(content, None)
    if name.lower().endswith((".hdr", ".hdr.gz")):
        stem = name.lower()[: name.lower().rindex(".hdr")]
        image = next(c for n, c in members if n.lower().startswith(f"{stem}.img"))
        return read_pair(content, image, name)
    return _content(content, name, None)


def _channels(values: np.ndarray, volume: Any, source: object) -> np.ndarray:
    """`[X, Y, Z]` or `[X, Y, Z, N]` -> `[C, X, Y, Z]`, by `volume`."""
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 3:
        values = values[..., None]
    if values.ndim != 4:
        raise ReadError(source, f"has {values.ndim} axes {values.shape}", "three, or four")
    count = values.shape[3]
    if volume == "channels":
        return np.moveaxis(values, 3, 0)
    if volume is None and count == 1:
        volume = 0
    is_integer = isinstance(volume, Integral) and not isinstance(volume, bool)
    if is_integer and -count <= volume < count:
        return values[None, ..., int(volume)]
    problem = f"requests volume {volume!r} of {count}" if volume is not None else ""
    raise ReadError(
        source,
        problem or f"holds {count} volumes, shape {values.shape}",
        f"{{path: ..., volume: 0}} (to {count - 1}), or volume: channels for all",
    )


def _contrasts(sources: Sequence[Any]) -> MetaTensor:
    """Several volumes on one grid as channels; None where one is absent."""
    volumes = [None if s is None else read(s) for s in sources]
    present = [volume for volume in volumes if volume is not None]
    if not present:
        raise ReadError(sources, "none of its contrasts is there", "one volume at least")
    first = present[0]
    for source, volume in zip(sources, volumes, strict=True):
        if volume is not None:
            _check_same_grid(first, volume, source)
    blank = torch.zeros_like(first.as_tensor()[:1])
    parts = [blank if v is None else v.as_tensor() for v in volumes]
    contrasts = tuple(v is not None for v in volumes for _ in range(1 if v is None else len(v)))
    meta = {k: v for k, v in first.meta.items() if k != "affine"} | {"contrasts": contrasts}
    return MetaTensor(torch.cat(parts), first.affine, meta)


def _check_same_grid(first: MetaTensor, other: MetaTensor, source: object) -> None:
    shape, expected = tuple(other.shape[1:]), tuple(first.shape[1:])
    if shape != expected:
        raise ReadError(
            source, f"has the shape {shape}, the first contrast {expected}", "contrasts on one grid"
        )
    corners = torch.tensor([[0, 0, 0, 1], [*(n - 1 for n in expected), 1]], dtype=torch.float64)
    distance = float(((other.affine - first.affine) @ corners.T)[:3].abs().max())
    if distance > CLOSE * float(first.pixdim.max()):
        raise ReadError(
            source, f"lies up to {distance:.3g} mm from the first contrast", "contrasts on one grid"
        )


def _reoriented(source: MetaTensor) -> MetaTensor:
    values, affine = _volume(source, {}, source)
    check_dtype(values.dtype, source)
    present = tuple(source.meta.get("contrasts", ()))
    volume = oriented(np.moveaxis(values, 3, 0), affine, source, present)
    # The file's own affine and shape, as `oriented` or MONAI's LoadImage kept them: both or none.
    shape = source.meta.get("original_shape", source.meta.get("spatial_shape"))
    if "original_affine" in source.meta and shape is not None:
        file = torch.as_tensor(np.asarray(source.meta["original_affine"], dtype=np.float64))
        volume.meta["original_affine"] = file
        volume.meta["original_shape"] = tuple(int(n) for n in shape)
    return volume


def example(rng: np.random.Generator) -> MetaTensor:
    """Return a volume like those of scanners, for dry runs and tests."""
    values = rng.uniform(0, 100, (1, 20, 22, 18)).astype(np.float32)
    return oriented(values, np.diag([4.0, 4.0, 4.0, 1.0]), "example")
