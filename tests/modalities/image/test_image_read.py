"""`read`: every form that pictures come in, and every way in which they are broken."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from sensorium.modalities.base import ReadError
from sensorium.modalities.image.preview import preview
from sensorium.modalities.image.read import example, read
from sensorium.testing.common import copy_for_worker

RNG = np.random.default_rng(0)
SMOOTH = Image.fromarray(RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((70, 50))
RGB = np.asarray(SMOOTH)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def gap(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).mean())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files_come_back(kind: str, tmp_path: Path) -> None:
    data = encode(SMOOTH, kind)
    path = tmp_path / "picture"
    path.write_bytes(data)
    with path.open("rb") as file:
        sources = [data, bytearray(data), memoryview(data), path, str(path), file]
        for source in [*sources, {"bytes": data, "path": None}, {"bytes": None, "path": str(path)}]:
            image = read(source)
            assert image.mode == "RGB"
            assert np.array_equal(np.asarray(image), RGB)


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {})])
def test_lossy_files_come_close(kind: str, options: dict[str, Any]) -> None:
    assert gap(read(encode(SMOOTH, kind, **options)), SMOOTH) < 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_one_bit(kind: str) -> None:
    bits = SMOOTH.convert("1")
    assert np.array_equal(np.asarray(read(encode(bits, kind)).convert("L")), np.asarray(bits) * 255)


def test_grey_has_three_equal_channels() -> None:
    image = np.asarray(read(encode(SMOOTH.convert("L"), "PNG")))
    assert (image == np.asarray(SMOOTH.convert("L"))[..., None]).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_range(kind: str) -> None:
    values = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    image = np.asarray(read(encode(Image.fromarray(values), kind)))[..., 0]
    assert np.abs(image - values / 257).max() <= 0.51
    assert image.min() == 0
    assert image.max() == 255


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_wide_modes_of_pillow(mode: str) -> None:
    image = Image.new(mode, (3, 2), 65535)
    assert (np.asarray(read(image)) == 255).all()


def test_float_pictures_hold_shares() -> None:
    shares = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    image = np.asarray(read(encode(Image.fromarray(shares), "TIFF")))[..., 0]
    assert np.array_equal(image, np.rint(shares * 255))
    with pytest.raises(ReadError, match=r"values from .* to 300"):
        read(Image.fromarray(shares * 300))


def test_alpha_lies_on_white() -> None:
    rgba = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    rgba.putpixel((1, 1), (0, 0, 255, 255))
    rgba.putpixel((2, 2), (0, 0, 0, 128))
    image = read(encode(rgba, "PNG"))
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.getpixel((1, 1)) == (0, 0, 255)
    assert image.getpixel((2, 2)) == (127, 127, 127)


def test_grey_with_alpha_lies_on_white() -> None:
    image = read(encode(Image.new("LA", (2, 2), (0, 0)), "PNG"))
    assert image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
@pytest.mark.parametrize("transparent", [False, True])
def test_palette(kind: str, transparent: bool) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 0)
    data = encode(image, kind, **({"transparency": 0} if transparent else {}))
    result = read(data)
    assert result.getpixel((1, 1)) == (200, 100, 50)
    assert result.getpixel((0, 0)) == ((255, 255, 255) if transparent else (10, 20, 30))


def test_colour_key_of_a_png_is_transparent() -> None:
    data = encode(Image.new("RGB", (2, 2), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert read(data).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_not_inverted(kind: str) -> None:
    """JPEG files hold Adobe's inverted values, TIFF files plain ones."""
    data = encode(SMOOTH.convert("CMYK"), kind, **({"quality": 95} if kind == "JPEG" else {}))
    assert gap(read(data), SMOOTH) < 6


def test_the_first_frame_of_many() -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "TIFF", "PNG", "WEBP"):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        assert gap(read(data), frames[0]) < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(SMOOTH, "PNG", exif=exif.tobytes())
    want = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    result = read(data)
    assert result.size == ((50, 70) if orientation >= 5 else (70, 50))
    assert np.array_equal(np.asarray(result), np.asarray(want))


ARRAYS = {
    "uint8": (RGB, RGB),
    "grey": (RGB[..., 0], RGB[..., [0, 0, 0]]),
    "grey in one channel": (RGB[..., :1], RGB[..., [0, 0, 0]]),
    "uint16": (RGB.astype(np.uint16) * 257, RGB),
    "bool": (RGB[..., 0] > 127, (RGB[..., [0, 0, 0]] > 127) * 255),
    "float32": (RGB.astype(np.float32) / 255, RGB),
    "float64": (RGB / 255, RGB),
    "int64": (RGB.astype(np.int64), RGB),
    "rows apart": (RGB[::2, ::-1], RGB[::2, ::-1]),
    "alpha": (np.dstack([RGB, np.zeros(RGB.shape[:2], np.uint8)]), np.full_like(RGB, 255)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name: str) -> None:
    array, want = ARRAYS[name]
    assert np.array_equal(np.asarray(read(array)), want)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("first", [False, True])
def test_tensors(dtype: torch.dtype, first: bool) -> None:
    tensor = torch.tensor(RGB).to(dtype)
    tensor = tensor / 255 if dtype.is_floating_point else tensor
    result = read(tensor.permute(2, 0, 1) if first else tensor)
    assert np.array_equal(np.asarray(result), RGB)


def test_a_bfloat16_tensor() -> None:
    assert read(torch.ones(3, 4, 5, dtype=torch.bfloat16)).size == (5, 4)


WRONG = {
    "no values": (np.zeros((0, 4, 3), np.uint8), "array"),
    "two channels": (np.zeros((4, 4, 2), np.uint8), "array"),
    "channels first": (np.zeros((3, 4, 5), np.uint8), "array"),
    "four dimensions": (np.zeros((1, 4, 4, 3), np.uint8), "array"),
    "NaN": (np.full((4, 4), np.nan), "values from nan"),
    "infinite": (np.full((4, 4), np.inf), "values from inf"),
    "above one": (np.full((4, 4), 1.5), "values from 1.5"),
    "negative": (np.full((4, 4), -1), "values from -1"),
    "complex": (np.zeros((4, 4), complex), "values of type complex128"),
    "words": (np.array([["a", "b"]]), "values of type"),
    "no bytes": (b"", "empty"),
    "a page": (b"<html>404 Not Found</html>" * 20, "no picture"),
    "zeros": (bytes(1000), "no picture"),
    "an empty cell": ({"bytes": None, "path": None}, "cell"),
    "a cell of nothing": ({}, "cell"),
    "empty bytes in a cell": ({"bytes": b"", "path": "a.png"}, r"a\.png: it is empty"),
    "no file": ("no/such/file.png", "No such file"),
    "a folder": (Path(__file__).parent, "directory"),
    "a number": (7, "no kind of picture"),
    "none": (None, "no kind of picture"),
    "a text file": (io.StringIO("text"), "not bytes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_picture_is_refused(name: str) -> None:
    source, why = WRONG[name]
    with pytest.raises(ReadError, match=why) as caught:
        read(source)
    assert "\n" not in str(caught.value)
    assert copy_for_worker(caught.value).wrong == caught.value.wrong


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_half_a_file_is_refused(kind: str) -> None:
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encode(noise, kind)
    for share in (0.02, 0.2, 0.5, 0.8):
        with pytest.raises(ReadError):
            read(data[: int(len(data) * share)])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_damaged_files_raise_nothing_else(kind: str) -> None:
    rng = np.random.default_rng(1)
    whole = encode(SMOOTH, kind)
    for _ in range(60):
        data = np.frombuffer(whole, np.uint8).copy()
        where = rng.integers(0, len(data), 8)
        data[where] = rng.integers(0, 256, 8)
        try:
            assert read(data.tobytes()).mode == "RGB"
        except ReadError as error:
            assert error.wrong


def test_bombs_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(SMOOTH, "PNG")
    for limit in (
        70 * 50 - 1,
        70 * 50 // 3,
    ):  # Pillow itself warns at the first, raises at the last
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings(), pytest.raises(ReadError, match="decompression bomb"):
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            read(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 70 * 50)
    assert read(data).size == (70, 50)


def test_a_picture_is_left_as_it_was() -> None:
    before = SMOOTH.tobytes()
    assert read(SMOOTH).tobytes() == before
    assert SMOOTH.tobytes() == before


def test_example_and_preview() -> None:
    one, two = example(np.random.default_rng(3)), example(np.random.default_rng(3))
    assert one.mode == "RGB"
    assert one.tobytes() == two.tobytes()
    page = preview(Image.new("RGB", (8, 8)))
    assert page.startswith('<img src="data:image/png;base64,')
    assert "pixelated" in page
    assert 'alt="picture, 8 x 8 px"' in page
    assert len(preview(Image.new("RGB", (3000, 2000)))) < 20_000
