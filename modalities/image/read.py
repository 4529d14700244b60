"""Pictures as people have them -> one canonical value: an RGB `PIL.Image`, upright, 8 bit.
A value with frames a second is a clip (`video_clip.py`).

Files of any format that Pillow decodes (the first frame or page), bytes, file objects, arrays,
tensors, pictures and the cells of 🤗 datasets. Transparency lies on white; 16-bit values keep
their range (65535 -> 255); the orientation that a camera wrote into EXIF is applied.

Legend: `H` height, `W` width.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ..base import ReadError, only_read_errors
from .video_clip import is_clip, read_clip

PICTURE = "a picture that Pillow can decode (JPEG, PNG, WebP, TIFF, BMP, GIF...)"
ARRAY = "uint8, uint16, bool, or floats in [0, 1], of [H, W] or [H, W, 1 | 3 | 4]"

_NOT_DECODED = frozenset(["BUFR", "EMF", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"])
"""Formats that Pillow recognizes, and decodes with other programs or not at all."""

_DATA = re.compile(r"data:image/[\w.+-]+;base64,")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@only_read_errors(PICTURE)
def read(source: Any) -> Any:
    """Any source of a picture -> RGB `PIL.Image`, of a clip -> `Clip`.

    source: a path, bytes, their text `data:image/png;base64,...` (as a generated picture is written
    in JSON), a file object, a picture, a cell `{"bytes":, "path":}`, an array
    `[H, W]` or `[H, W, 1 | 3 | 4]`, or a tensor (`[C, H, W]` too, as torchvision has it); for a
    clip a cell `{"frames": [T, H, W, 3], "fps":}`, or an array that has an attribute `fps`.
    Raise `ReadError` for a value that is no picture, empty, truncated, or too large to be safe.
    """
    if isinstance(source, Image.Image):
        return _decode(source, source)
    if is_clip(source):
        return read_clip(source)
    if isinstance(source, torch.Tensor):
        return _from_array(_channels_last(source), source)
    if hasattr(source, "__array__"):
        return _from_array(np.asarray(source), source)
    if isinstance(source, Mapping):
        return _from_cell(source)
    if isinstance(source, (str, Path)):
        return _from_path(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(source), bytes(source))
    if hasattr(source, "read"):
        return _from_bytes(source.read(), source)
    raise ReadError(source, "no kind of picture", "a path, bytes, a file, an array or a picture")


def suffixes() -> frozenset[str]:
    """Return the suffixes, in lower case, of the files that Pillow can decode."""
    registered = Image.registered_extensions()
    formats = set(Image.OPEN) - _NOT_DECODED
    return frozenset(suffix for suffix, kind in registered.items() if kind in formats)


def _from_cell(cell: Mapping[str, Any]) -> Image.Image:
    unknown = sorted(str(k) for k in cell if k not in ("bytes", "path") and cell[k] is not None)
    if unknown:
        raise ReadError(cell, f"unknown keys {', '.join(unknown)}", "'bytes', 'path' or both")
    if cell.get("bytes") is not None:
        return _from_bytes(cell["bytes"], cell.get("path") or cell["bytes"])
    if cell.get("path"):
        return _from_path(cell["path"])
    keys = sorted(map(str, cell))
    raise ReadError(cell, f"a cell with the keys {keys}", "'bytes' or 'path' in it")


def _from_path(path: str | Path) -> Image.Image:
    if not str(path):
        raise ReadError("a cell", "its file name is empty", "the path of a picture")
    if head := _DATA.match(str(path)):
        return _from_bytes(base64.b64decode(str(path)[head.end() :]), head.group())
    if _ADDRESS.match(str(path)):
        raise ReadError(path, "an address, which is not fetched", "a file; download it first")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ReadError(path, error.strerror or str(error), "a file that can be read") from error
    return _from_bytes(data, path)


def _from_bytes(data: Any, source: object) -> Image.Image:
    if not isinstance(data, bytes):
        raise ReadError(source, f"it returns {type(data).__name__}, not bytes", "a binary file")
    if not data:
        raise ReadError(source, "it is empty", PICTURE)
    try:
        picture = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise ReadError(source, "no picture", PICTURE) from error
    except Image.DecompressionBombError as error:
        raise ReadError(source, str(error), "fewer pixels") from error
    except Exception as error:  # a broken header may raise any error of its plug-in
        raise ReadError(source, f"a broken header ({error})", PICTURE) from error
    return _decode(picture, source)


def _decode(picture: Image.Image, source: object) -> Image.Image:
    """Decode, turn upright, convert; Pillow only warns between its limit and twice that."""
    limit, pixels = Image.MAX_IMAGE_PIXELS, picture.width * picture.height
    if limit is not None and pixels > limit:
        raise ReadError(source, f"{pixels} pixels, a decompression bomb?", f"at most {limit}")
    if not pixels:
        raise ReadError(source, f"{picture.width} x {picture.height} pixels", "at least one pixel")
    try:
        picture.load()
        return _to_rgb(ImageOps.exif_transpose(picture), source)
    except ReadError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error...
        raise ReadError(source, f"broken or truncated ({error})", "a whole file") from error


def _to_rgb(picture: Image.Image, source: object) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return _from_array(np.asarray(picture).astype(np.uint16), source)
    if picture.mode in ("I", "F"):
        return _from_array(_wide(picture, source), source)
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("RGB")


def _wide(picture: Image.Image, source: object) -> np.ndarray:
    """32-bit modes: `I` holds 16-bit values in practice, `F` must already lie in [0, 1]."""
    values = np.asarray(picture)
    if picture.mode == "F":
        return values
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ReadError(source, f"integers from {low} to {high}", "0 to 65535")
    return values.astype(np.uint16)


def _channels_last(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()  # numpy has no bfloat16
    if tensor.ndim == 3 and tensor.shape[0] in (1, 3, 4):
        tensor = tensor.permute(1, 2, 0)
    return tensor.numpy()


def _from_array(array: np.ndarray, source: object) -> Image.Image:
    if not array.size or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))):
        raise ReadError(source, f"an array {array.dtype} {array.shape}", ARRAY)
    pixels = _to_bytes(array, source)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return _to_rgb(Image.fromarray(np.ascontiguousarray(pixels)), source)


def _to_bytes(array: np.ndarray, source: object) -> np.ndarray:
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise ReadError(source, f"values of type {array.dtype}", ARRAY)
    low, high = array.min(), array.max()  # NaN if any value is
    if array.dtype.kind in "iu" and low >= 0 and high <= 255:
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.rint(array * 255).astype(np.uint8)
    raise ReadError(source, f"{array.dtype} values from {low} to {high}", ARRAY)


def example(rng: np.random.Generator) -> Image.Image:
    """Return a small picture of soft blots of colour, for dry runs."""
    blots = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(blots).resize((60, 48), Image.Resampling.BICUBIC)
