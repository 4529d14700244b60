"""NIfTI files: the header by nibabel, the bytes by ISA-L, which inflates twice as fast as zlib.

Legend: `X Y Z` voxels, `N` volumes of a series.
"""

from __future__ import annotations

import io
import zlib
from typing import Any

import nibabel
import numpy as np
from isal import igzip_lib, isal_zlib

from ...base import ReadError

GZIP = b"\x1f\x8b"
UNITS = {"meter": 1e3, "micron": 1e-3}
"""Of a header's own unit, how many mm one is."""
_DAMAGED: Any = (igzip_lib.IsalError, zlib.error, EOFError)


def nifti(content: bytes, source: object) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of a `.nii` or `.nii.gz` -> values `[X, Y, Z]` or `[X, Y, Z, N]`, and the affine
    in mm. Values keep their type where the header scales nothing."""
    if content[:2] == GZIP:
        content = _inflated(content, source)
    header = _header(content, source)
    shape, kind = header.get_data_shape(), header.get_data_dtype()
    if kind.fields is not None or kind.kind == "c":
        raise ReadError(source, f"holds {kind} values", "one grey value a voxel, not colour")
    start, count = int(header["vox_offset"]) or header.single_vox_offset, int(np.prod(shape))
    end = start + count * kind.itemsize
    if len(content) < end:
        raise ReadError(
            source,
            f"ends after {len(content):,} of {end:,} bytes",
            "the whole file; copy it again",
        )
    values = np.frombuffer(content, kind, count, start).reshape(shape, order="F")
    slope, shift = header.get_slope_inter()
    if (slope, shift) not in ((None, None), (1.0, 0.0)):
        values = values.astype(np.float32) * np.float32(slope) + np.float32(shift)
    affine = np.array(header.get_best_affine(), dtype=np.float64)
    affine[:3] *= UNITS.get(header.get_xyzt_units()[0], 1.0)
    return values, affine


def _inflated(content: bytes, source: object) -> bytes:
    # The last four bytes of a gzip member are its size before: the buffer is made once.
    guess = int.from_bytes(content[-4:], "little")
    try:
        found: bytes = isal_zlib.decompress(
            content, wbits=31, bufsize=min(max(guess, 1 << 16), 1 << 31)
        )
    except _DAMAGED as error:
        raise ReadError(
            source, f"its gzip stream is damaged or cut short ({error})", "the whole file"
        ) from None
    return found


def _header(content: bytes, source: object) -> nibabel.Nifti1Header:
    if not looks_like(content[:4]) or content[:2] == GZIP:
        raise ReadError(source, "it has no NIfTI header", ".nii or .nii.gz")
    form = nibabel.Nifti2Header if content[:4] in _SIZES[540] else nibabel.Nifti1Header
    try:
        header = form.from_fileobj(io.BytesIO(content[: form.sizeof_hdr]), check=False)
        shape = header.get_data_shape()
        header.get_data_dtype()
    except Exception as error:  # nibabel has an error class a fault
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ReadError(source, f"its NIfTI header is damaged ({reason})", "a whole file") from None
    if not shape or min(shape) < 1:
        raise ReadError(source, f"its header says the shape {shape}", "a whole file")
    return header


def looks_like(head: bytes) -> bool:
    """True for the first bytes of a NIfTI file, or of something gzipped."""
    return head[:2] == GZIP or head[:4] in _SIZES[348] + _SIZES[540]


_SIZES = {size: [size.to_bytes(4, order) for order in ("little", "big")] for size in (348, 540)}
