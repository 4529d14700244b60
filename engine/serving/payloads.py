"""Values of a request as inputs of a model: data URIs, base64, uploaded files, numbers, texts.

A client never names a file or an address of the server's side: where a stream's texts are names
of files, its values are contents.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...modalities.messages import short_repr
from ..inference import StepwisePipeline
from .errors import RequestError, bad_request
from .files import FileStore
from .settings import ServeSettings

CONTENT = 'a data URI (data:image/png;base64,...), {"data": base64} or {"file": id of an upload}'


def decode_base64(text: str, where: str) -> bytes:
    """Return the bytes of a base64 text or a data URI. Raise RequestError for any other text."""
    head, comma, body = text.partition(",")
    if text.startswith("data:"):
        if not comma or not head.endswith(";base64"):
            raise bad_request(f"{where}: a data URI must be base64: data:TYPE;base64,...")
        text = body
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_request(f"{where}: found no base64, expected {CONTENT}") from error


class Payloads:
    """Decodes the values of a pipeline's streams and checks their sizes."""

    def __init__(
        self, pipeline: StepwisePipeline, files: FileStore, settings: ServeSettings
    ) -> None:
        self.pipeline, self.files, self.settings = pipeline, files, settings

    def row(self, task: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row of a task from JSON values by stream and column. Raise RequestError."""
        built = self.pipeline.model.plan.tasks[task].task
        names = [*built.inputs(), *built.prompt_columns(), *built.columns()]
        for name in inputs:
            if name not in names:
                known = ", ".join(dict.fromkeys(names)) or "none"
                raise bad_request(f"{task}: takes no {name[:60]!r}; it takes: {known}")
        row = {}
        for name, value in inputs.items():
            use = built.streams.get(name)
            if use is None:
                row[name] = _column(name, value)
            elif self.pipeline.model.plan.streams[name].many(use):
                items = value if isinstance(value, list) else [value]
                row[name] = [self.value(name, item) for item in items]
            else:
                row[name] = self.value(name, value)
        missing = [name for name in (*built.inputs(), *built.prompt_columns()) if name not in row]
        if missing:
            raise bad_request(f"{task}: needs {', '.join(missing)} among its inputs")
        return row

    def value(self, stream: str, value: Any) -> Any:
        """Return one item of a stream as its modality reads it. Raise RequestError."""
        if self.pipeline.names_files(stream):
            content = value if isinstance(value, bytes) else self._content(stream, value)
            self._check_size(stream, content)
            return content
        if isinstance(value, str):
            return value
        if isinstance(value, list):
            return _numbers(stream, value)
        raise bad_request(f"{stream}: found {short_repr(value)}, expected a text or numbers")

    def _content(self, stream: str, value: Any) -> bytes:
        if isinstance(value, str):
            if value.startswith(("http:", "https:")):
                raise bad_request(f"{stream}: addresses are not fetched; send {CONTENT}")
            return decode_base64(value, stream)
        if isinstance(value, Mapping) and len(value) == 1:
            ((kind, content),) = value.items()
            if kind == "data" and isinstance(content, str):
                return decode_base64(content, stream)
            if kind == "file" and isinstance(content, str):
                return self.files.get(content).path.read_bytes()
        raise bad_request(f"{stream}: found {short_repr(value)}, expected {CONTENT}")

    def _check_size(self, stream: str, content: bytes) -> None:
        settings = self.settings
        for unit, limit, measure in (
            ("pixels", settings.max_pixels, _pixels),
            ("voxels", settings.max_voxels, _voxels),
            ("seconds", settings.max_seconds, _seconds),
        ):
            size = _measured(measure, content)
            if size is not None and size > limit:
                raise RequestError(
                    413, f"{stream}: has {size:,.0f} {unit}, more than the {limit:,.0f} allowed"
                )


def _column(name: str, value: Any) -> Any:
    """Return the value of a column of a prompt: a text, a number, a truth value or a list."""
    plain = (str, int, float, bool)
    if isinstance(value, plain) or (
        isinstance(value, list) and all(isinstance(v, plain) for v in value)
    ):
        return value
    raise bad_request(f"{name}: found {short_repr(value)}, expected a text or a number")


def _numbers(stream: str, values: list[Any]) -> np.ndarray:
    try:
        array = np.asarray(values, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise bad_request(f"{stream}: is no array of numbers: {error}") from error
    if not np.isfinite(array).all():
        raise bad_request(f"{stream}: holds numbers that are not finite")
    return array


def _measured(measure: Callable[[bytes], float | None], content: bytes) -> float | None:
    """Return the size in a header; None if it is no such file, which `read` refuses."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return measure(content)
    except Exception:
        return None


def _pixels(content: bytes) -> float | None:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return image.width * image.height * getattr(image, "n_frames", 1)


def _seconds(content: bytes) -> float | None:
    import soundfile

    return float(soundfile.info(io.BytesIO(content)).duration)


_NIFTI1, _NIFTI2 = 348, 540


def _voxels(content: bytes) -> float | None:
    """Of NIfTI, compressed or not; of a zip the bytes that it would fill."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    if content[:2] == b"\x1f\x8b":
        with gzip.open(io.BytesIO(content)) as stream:
            content = stream.read(_NIFTI2)
    for order in "<>":
        (size,) = struct.unpack_from(f"{order}i", content)
        if size == _NIFTI1:
            count, *shape = struct.unpack_from(f"{order}8h", content, 40)
        elif size == _NIFTI2:
            count, *shape = struct.unpack_from(f"{order}8q", content, 16)
        else:
            continue
        return float(np.prod([max(1, n) for n in shape[:count]], dtype=np.float64))
    return None
