"""The formats: small valid files made by the libraries, their mutations, and what reads them."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.scripts.fuzzing import mutations

Files = dict[str, bytes]


@dataclasses.dataclass(frozen=True)
class Format:
    """A format. files: makes small valid files. read: reads a folder that holds one, damaged, or
    raises ReadError or ConfigError. mutations: those that parse its header. share: of all cases.
    """

    files: Callable[[], list[Files]]
    read: Callable[[Path], Any]
    mutations: tuple[mutations.Mutation, ...]
    share: float


def _only(folder: Path) -> Path:
    return next(path for path in sorted(folder.iterdir()) if path.suffix != ".img")


def _nifti() -> list[Files]:
    import nibabel

    values = np.random.default_rng(0).integers(0, 99, (5, 6, 7)).astype(np.int16)
    affine = np.diag([2.0, 2, 2, 1])
    image = nibabel.Nifti1Image(values, affine)
    series = nibabel.Nifti1Image(np.stack([values] * 2, -1).astype(np.float32), affine)
    scaled = nibabel.Nifti1Image(values, affine)
    scaled.header.set_slope_inter(2, 1)
    plain = image.to_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.nii"), plain)
    pair = nibabel.Nifti1Pair(values, affine)
    maps = pair.make_file_map({"header": io.BytesIO(), "image": io.BytesIO()})
    pair.to_file_map(maps)
    head, body = (maps[part].fileobj.getvalue() for part in ("header", "image"))
    images = [image, series, scaled, nibabel.Nifti2Image(values, affine)]
    return [
        *({"a.nii": each.to_bytes()} for each in images),
        {"a.nii.gz": gzip.compress(plain, 1, mtime=0)},
        {"a.zip": packed.getvalue()},
        {"a.hdr": head, "a.img": body},
    ]


def _read_volume(folder: Path) -> Any:
    from sensorium.modalities.mri.io import read

    return read({"path": str(_only(folder)), "volume": 0})


def _dicom() -> list[Files]:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    series, rng = generate_uid(entropy_srcs=["series"]), np.random.default_rng(0)
    files: Files = {}
    for place in range(3):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
        data.SOPInstanceUID = generate_uid(entropy_srcs=[str(place)])
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.SeriesInstanceUID, data.Modality, data.InstanceNumber = series, "MR", place
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.Rows, data.Columns, data.PixelSpacing = 4, 5, [2.0, 1.5]
        data.ImageOrientationPatient = [1.0, 0, 0, 0, 1, 0]
        data.ImagePositionPatient, data.SliceThickness = [0.0, 0, 3.0 * place], 3.0
        data.RescaleSlope, data.RescaleIntercept = "1", "0"
        data.PixelData = rng.integers(0, 99, (4, 5)).astype(np.uint16).tobytes()
        out = io.BytesIO()
        data.save_as(out, enforce_file_format=True)
        files[f"{place}.dcm"] = out.getvalue()
    return [files]


def _read_folder(folder: Path) -> Any:
    from sensorium.modalities.mri.io import read

    return read(str(folder))


def _pictures() -> list[Files]:
    from PIL import Image

    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 255, (9, 11, 3), np.uint8))
    deep = Image.fromarray(rng.integers(0, 65535, (9, 11)).astype(np.uint16))
    exif = colour.getexif()
    exif[0x0112] = 6
    kinds = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "JPEG2000")
    cases: list[tuple[str, Any, dict[str, Any]]] = [
        *((kind, colour, {}) for kind in kinds),
        ("PNG", colour.quantize(16), {}),
        ("PNG", deep, {}),
        ("PNG", colour.convert("LA"), {}),
        ("JPEG", colour, {"exif": exif}),
        ("JPEG", colour.convert("CMYK"), {}),
        ("TIFF", deep, {"compression": "tiff_lzw"}),
    ]
    files: list[Files] = []
    for kind, picture, options in cases:
        out = io.BytesIO()
        picture.save(out, kind, **options)
        files.append({f"a.{kind.lower()}": out.getvalue()})
    return files


def _read_picture(folder: Path) -> Any:
    from sensorium.modalities.image.read import read

    return read(str(_only(folder)))


def _sounds() -> list[Files]:
    import soundfile

    wave, files = np.sin(np.arange(2000) / 9) * 0.3, []
    subtypes = {"WAV": ("PCM_16", "FLOAT", "MS_ADPCM", "ULAW"), "RF64": ("PCM_24",)}
    for kind in ("WAV", "RF64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64"):
        for subtype in subtypes.get(kind, (None,)):
            out = io.BytesIO()
            soundfile.write(out, np.stack([wave, wave], 1), 8000, format=kind, subtype=subtype)
            files.append({f"a.{kind.lower()}": _timeless(out.getvalue())})
    return files


def _timeless(sound: bytes) -> bytes:
    """Return a sound file without the time in its PEAK chunk, and with 1 as the number of its Ogg
    stream, which libsndfile draws."""
    peak = sound.find(b"PEAK")
    if 0 <= peak < 200:
        sound = sound[: peak + 12] + bytes(4) + sound[peak + 16 :]
    return b"".join(map(mutations.ogg_page, mutations.ogg_pages(sound)))


def _read_sound(folder: Path) -> Any:
    from sensorium.modalities.audio.read import read

    return read(str(_only(folder)))


ROWS = [
    {"image": "a.png", "text": f"a word {i}", "n": i, "x": i / 3, "on": bool(i % 2)}
    for i in range(5)
]


def _csv() -> list[Files]:
    lines = [",".join(ROWS[0]), *(",".join(map(str, row.values())) for row in ROWS)]
    quoted = ['"text","n"', '"a, b",1', '"c ""d""",2', '"e\nf",3']
    return [{"a.csv": "\n".join(lines).encode()}, {"a.csv": "\r\n".join(quoted).encode()},
            {"a.csv": b"b\n1\n2\n"}]  # fmt: skip


def _json() -> list[Files]:
    nested = [{**row, "box": [1, 2.5, None], "more": {"a": [row["n"]], "b": "é"}} for row in ROWS]
    return [{"a.jsonl": "\n".join(map(json.dumps, rows)).encode()} for rows in (ROWS, nested)] + [
        {"a.json": json.dumps(nested, indent=1).encode()}
    ]


def _parquet() -> list[Files]:
    import pyarrow
    import pyarrow.parquet

    files: list[Files] = []
    for options in ({}, {"compression": "none", "use_dictionary": False}, {"compression": "zstd"}):
        out = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), out, **options)
        files.append({"a.parquet": out.getvalue()})
    return files


def _tar() -> list[Files]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for place in range(3):
            picture = _pictures()[0]["a.png"]
            members = {
                "png": picture,
                "txt": b"a word",
                "json": json.dumps(ROWS[place]).encode(),
                "cls": b"1",
            }
            for suffix, content in members.items():
                info = tarfile.TarInfo(f"{place:04}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return [{"a.tar": out.getvalue()}]


def _read_rows(source: str, **options: Any) -> Callable[[Path], list[Any]]:
    """Return what opens a source on the folder's file and prepares all rows, as training does."""

    def read(folder: Path) -> list[Any]:
        from sensorium.engine.data import StreamDataset, open_section
        from sensorium.engine.recipe import DataSection
        from sensorium.engine.recipe.validation import validate
        from sensorium.modalities.base import StreamingSource, read_errors

        values = {"source": source, "path": str(_only(folder)), **options}
        opened = open_section(validate(DataSection, values, "data", "a data section"), "data")
        if isinstance(opened, StreamingSource):
            return [row for row, _ in zip(opened, range(50), strict=False)]
        dataset = StreamDataset(opened, {})
        rows = [dataset.prepare(index) for index in range(min(50, len(opened)))]
        for row in rows:
            assert row.failure is None or "\n" not in row.failure, f"row: {row.failure!r}"
        for index, row in enumerate(rows[:5]):
            for name in opened.columns if row.failure is None else ():
                with read_errors(row.row[name], "a cell"):
                    opened.cell_key(index, name)
        return rows

    return read


RECIPE = """inputs:
  image:
    modality: image
    encoder: {type: patches, size: 8, patch_size: 4, dim: 16}
    connector: mlp
backbone:
  type: causal
  name: tiny-llama
  tokenizer: bytes
  options: {hidden_size: 32, intermediate_size: 32, num_hidden_layers: 1}
tasks:
  caption:
    type: captioning
    prompt: "<image> Describe:"
    target: "{word}"
    data: {train: {source: digits, split: train, limit: 8, holdout: 0.5}}
  digit:
    type: classification
    input: image
    target: word
    head: {type: mlp, hidden: 8}
    data: {train: {source: digits, split: train, holdout: 0.1}}
train: {steps: 2, batch_size: 4, optimizer: {type: adamw, lr: 1e-3}, validate: {every: 1}}
cache: {samples: true}
"""


def _recipes() -> list[Files]:
    child = b"extends: base.yaml\ntrain: {steps: 3}\ninputs:\n  image:\n    encoder: {size: 16}\n"
    return [{"a.yaml": RECIPE.encode()}, {"a.yaml": child, "base.yaml": RECIPE.encode()}]


def _read_recipe(folder: Path) -> Any:
    from sensorium.engine.recipe import load_recipe, plan_recipe

    return plan_recipe(load_recipe(folder / "a.yaml"))


FORMATS = {
    "nifti": Format(_nifti, _read_volume, (mutations.nifti,), 0.2),
    "dicom": Format(_dicom, _read_folder, (mutations.dicom,), 0.15),
    "picture": Format(_pictures, _read_picture, (mutations.png,), 0.2),
    "sound": Format(_sounds, _read_sound, (mutations.ogg,), 0.15),
    "csv": Format(_csv, _read_rows("csv"), (mutations.text,), 0.05),
    "json": Format(_json, _read_rows("json"), (mutations.text,), 0.05),
    "parquet": Format(_parquet, _read_rows("parquet"), (), 0.05),
    "tar": Format(_tar, _read_rows("webdataset"), (mutations.tar,), 0.05),
    "recipe": Format(_recipes, _read_recipe, (mutations.text,), 0.1),
}
