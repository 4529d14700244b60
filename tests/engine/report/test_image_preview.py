"""Boxes, masks and maps lie on the picture where they are, whatever its size on the page."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sensorium.modalities.image.preview import COLOURS, SIZE, preview

GREY = Image.new("RGB", (40, 20), (90, 90, 90))


def drawn(image: Image.Image, **marks: Any) -> tuple[np.ndarray, str]:
    html = preview(image, marks)
    data = html.partition("base64,")[2].partition('"')[0]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(
        int
    ), html


def like(pixels: np.ndarray, who: str) -> np.ndarray:
    """Return where the pixels have the colour of whom."""
    return np.asarray(np.abs(pixels - np.array(COLOURS[who])).sum(-1) < 30)


def extent(where: np.ndarray) -> list[float]:
    """Return the first and last place of an area on both axes, as shares of the picture."""
    rows, columns = np.nonzero(where)
    height, width = where.shape
    return [rows.min() / height, columns.min() / width, (rows.max() + 1) / height,
            (columns.max() + 1) / width]  # fmt: skip


@pytest.mark.parametrize("size", [(40, 20), (800, 400)])
def test_a_box_lies_where_it_is(size: tuple[int, int]) -> None:
    image = GREY.resize(size)
    box = [5 / 20 * size[1], 10 / 40 * size[0], 15 / 20 * size[1], 30 / 40 * size[0]]
    pixels, html = drawn(image, boxes=([box], [[0, 0, size[1], size[0]]]))
    assert pixels.shape[1] == SIZE
    assert extent(like(pixels, "predicted")) == pytest.approx([0.25, 0.25, 0.75, 0.75], abs=0.02)
    assert extent(like(pixels, "reference")) == pytest.approx([0, 0, 1, 1], abs=0.02)
    assert "orange: predicted; green: reference" in html


@pytest.mark.parametrize("grid", ["pixels", "coarse"])
def test_a_mask_lies_where_it_is(grid: str) -> None:
    """As an array of the picture's size, or on a grid of four pixels a cell."""
    if grid == "pixels":
        mask: Any = np.zeros((20, 40), bool)
        mask[4:12, 8:24] = True
    else:
        array = np.zeros((5, 10))
        array[1:3, 2:6] = 1
        mask = {"array": array, "affine": np.array([[4, 0, 2], [0, 4, 2], [0, 0, 1.0]])}
    pixels, html = drawn(GREY, mask=(None, mask))
    expected = pytest.approx([0.2, 0.2, 0.6, 0.6], abs=0.02)
    assert extent(like(pixels, "reference")) == expected  # the outline
    assert "green" in html and "orange" not in html
    assert (pixels[0, 0] == 90).all()


def test_what_is_nowhere_is_not_drawn() -> None:
    html = preview(GREY, {"mask": (None, np.zeros((20, 40), bool)), "boxes": ([], None)})
    assert html == preview(GREY)
