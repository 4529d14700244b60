"""NIfTI: the header by nibabel, the bytes by ISA-L, which inflates twice as fast as zlib.

A file, its bytes and nibabel's image of it yield the same values and the same affine.

Legend: `X Y Z` voxels, `N` volumes of a series.
"""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

import nibabel
import numpy as np
from isal import igzip, isal_zlib
from nibabel.orientations import aff2axcodes
from nibabel.spatialimages import SpatialImage

from ...base import ReadError

GZIP = b"\x1f\x8b"
UNITS = {"meter": 1e3, "micron": 1e-3}
"""Of a header's own unit, how many mm one is."""
PAIR = (b"ni1\0", b"ni2\0")
"""Magic of a header whose voxels are in another file."""


def read_nifti(content: bytes, source: object) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of a `.nii` or `.nii.gz` -> values `[X, Y, Z]` or `[X, Y, Z, N]`, and the affine
    in mm. Values keep their type where the header scales nothing. Raise ReadError."""
    if content[:2] == GZIP:
        content = inflate(content, source)
    header = _header(content, source)
    if header["magic"].item()[:4].ljust(4, b"\0") in PAIR:
        raise ReadError(
            source, "is the header of a pair", "the path of its .hdr beside its .img, or one .nii"
        )
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    check_dtype(dtype, source)
    start, count = int(header["vox_offset"]) or header.single_vox_offset, math.prod(shape)
    end = start + count * dtype.itemsize
    if start < 0 or len(content) < end:
        raise ReadError(
            source,
            f"ends after {len(content):,} of {end:,} bytes",
            "the whole file; copy it again",
        )
    values = np.frombuffer(content, dtype, count, start).reshape(shape, order="F")
    return _scaled(values, header, source), header_affine(header, source)


def read_image(image: SpatialImage, source: object) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of nibabel, of any format, as `read_nifti` reads a file. Raise ReadError."""
    if image.affine is None:
        raise ReadError(source, "has no affine", "an image with a position in space")
    try:
        check_dtype(image.get_data_dtype(), source)
        values = np.asarray(image.dataobj)
        return values, _image_affine(image, source)
    except ReadError:
        raise
    except Exception as error:  # nibabel and gzip have an error class a fault
        raise ReadError(source, f"cannot be read ({_line(error)})", "a whole image") from error


def _image_affine(image: SpatialImage, source: object) -> np.ndarray:
    header = image.header
    affine = np.array(image.affine, dtype=np.float64)
    best = getattr(header, "get_best_affine", lambda: affine)()
    unchanged = np.allclose(affine, best, atol=1e-3, equal_nan=True)  # by the user, since
    if isinstance(header, nibabel.Nifti1Header):
        if unchanged:
            return header_affine(header, source)
        affine[:3] *= _millimetres(header)
    elif isinstance(header, nibabel.AnalyzeHeader) and unchanged:
        _warn(
            source,
            "is in the format Analyze, which does not define left and right; read as if the first "
            "axis ran to the left",
        )
    return affine


def read_pair(header: Any, image: Any, source: object) -> tuple[np.ndarray, np.ndarray]:
    """Return the two files of a `.hdr` / `.img` pair (NIfTI or Analyze), each a path or bytes."""
    contents = []
    for part in (header, image):
        content = part if isinstance(part, bytes) else part.read_bytes()
        contents.append(inflate(content, source) if content[:2] == GZIP else content)
    files = {
        name: nibabel.FileHolder(fileobj=io.BytesIO(content))
        for name, content in zip(("header", "image"), contents, strict=True)
    }
    magic = contents[0][344:348], contents[0][4:8]
    form: Any = nibabel.Spm2AnalyzeImage
    if magic[0] in (b"ni1\0", b"n+1\0"):
        form = nibabel.Nifti1Pair
    elif magic[1] in (b"ni2\0", b"n+2\0"):
        form = nibabel.Nifti2Pair
    try:
        if form is nibabel.Spm2AnalyzeImage:
            files["mat"] = nibabel.FileHolder(fileobj=io.BytesIO())
        loaded = form.from_file_map(files)
    except Exception as error:  # nibabel has an error class a fault
        wrong = f"its header is damaged ({_line(error)})"
        raise ReadError(source, wrong, "a whole pair") from error
    return read_image(loaded, source)


def check_dtype(dtype: np.dtype, source: object) -> None:
    """Refuse data other than one grey value a voxel."""
    if dtype.fields is not None or dtype.kind not in "biuf":
        raise ReadError(
            source, f"holds {dtype} values", "one grey value a voxel, not colour or complex numbers"
        )


def header_affine(header: Any, source: object) -> np.ndarray:
    """Return the affine in mm: the sform, else the qform, else the spacing alone. What leaves the
    side in doubt is warned of: forms that disagree, or none."""
    try:
        sform, sform_code = header.get_sform(coded=True)
        qform = header.get_qform() if header["qform_code"] > 0 else None
        affine = np.array(header.get_best_affine(), dtype=np.float64)
        scale = _millimetres(header)
    except Exception as error:  # nibabel has an error class a fault
        wrong = f"its NIfTI header is damaged ({_line(error)})"
        raise ReadError(source, wrong, "a whole file") from error
    if sform_code and not _valid(sform) and qform is not None and _valid(qform):
        _warn(source, "its sform is empty; the qform is read")
        affine = np.array(qform, dtype=np.float64)
    elif sform_code and qform is not None and _valid(sform) and _valid(qform):
        codes = ["".join(map(str, aff2axcodes(form))) for form in (sform, qform)]
        if codes[0] != codes[1]:
            _warn(
                source,
                f"its sform and qform disagree about directions ({codes[0]} and {codes[1]}), so "
                "that left may be right; the sform is read",
            )
    elif not sform_code and qform is None:
        _warn(
            source,
            "its header has neither sform nor qform, so that left may be right; read as if the "
            "first axis ran to the left",
        )
    affine[:3] *= scale
    return affine


def _valid(affine: Any) -> bool:
    """Return True for an affine that can be inverted."""
    linear = np.asarray(affine, dtype=np.float64)[:3, :3]
    edges = np.linalg.norm(linear, axis=0)
    return bool(
        np.isfinite(affine).all() and edges.min() > 0 and abs(np.linalg.det(linear / edges)) > 1e-4
    )


def _millimetres(header: Any) -> float:
    return UNITS.get(header.get_xyzt_units()[0], 1.0)


def _scaled(values: np.ndarray, header: Any, source: object) -> np.ndarray:
    try:
        slope, intercept = header.get_slope_inter()
    except Exception as error:  # nibabel has an error class a fault
        wrong = f"its NIfTI header is damaged ({_line(error)})"
        raise ReadError(source, wrong, "a whole file") from error
    if (slope, intercept) in ((None, None), (1.0, 0.0)):
        return values
    scaled: np.ndarray = values.astype(np.float64)  # as nibabel does
    scaled *= slope
    scaled += intercept
    return scaled


def _warn(source: object, text: str) -> None:
    name = "a volume in memory" if isinstance(source, (bytes, SpatialImage)) else str(source)
    warnings.warn(f"{name}: {text}", stacklevel=2)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def inflate(content: bytes, source: object) -> bytes:
    """Return all members of a gzip stream, one after the other. Raise ReadError."""
    try:
        inflater = isal_zlib.decompressobj(wbits=31)
        inflated: bytes = inflater.decompress(content)
        if not inflater.eof:
            raise EOFError("it ends within")
        if inflater.unused_data[:2] != GZIP:
            return inflated
        # Streamed: one member at a time would copy the rest for each (bgzip has thousands).
        with igzip.IGzipFile(fileobj=io.BytesIO(content)) as file:
            inflated = file.read()
    except Exception as error:  # ISA-L has an error class a fault
        raise ReadError(
            source, f"its gzip stream is damaged or cut short ({_line(error)})", "the whole file"
        ) from error
    return inflated


def _header(content: bytes, source: object) -> nibabel.Nifti1Header:
    if not looks_like_nifti(content[:4]) or content[:2] == GZIP:
        raise ReadError(source, "it has no NIfTI header", ".nii or .nii.gz")
    form = nibabel.Nifti2Header if content[:4] in _SIZES[540] else nibabel.Nifti1Header
    try:
        header = form.from_fileobj(io.BytesIO(content[: form.sizeof_hdr]), check=False)
        shape = header.get_data_shape()
        header.get_data_dtype()
    except Exception as error:  # nibabel has an error class a fault
        raise ReadError(
            source, f"its NIfTI header is damaged ({_line(error)})", "a whole file"
        ) from error
    if not shape or min(shape) < 1:
        raise ReadError(source, f"its header has the shape {shape}", "a whole file")
    return header


def looks_like_nifti(head: bytes) -> bool:
    """Return True for the first bytes of a NIfTI file, or of something gzipped."""
    return head[:2] == GZIP or head[:4] in _SIZES[348] + _SIZES[540]


_SIZES = {size: [size.to_bytes(4, order) for order in ("little", "big")] for size in (348, 540)}
