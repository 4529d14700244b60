"""Scanned handwritten digits that come with scikit-learn, each described in one sentence.

1,797 pictures of 8 x 8 pixels in 17 greys: Alpaydin & Kaynak, "Optical Recognition of Handwritten
Digits", 1998. Every word of a caption follows from the picture: the digit and its parity from
the label, the stroke from the ink, the slant from the second moments of the ink.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any, Literal

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ...base import Count, Source

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WRITER_TEST = 360
"""The last rows of the set come from other writers than the first ones."""

LEAN = 0.1
"""Shear (px sideways a px upwards) from which ink leans: about 6 degrees off the vertical."""


def ink(pixels: np.ndarray) -> np.ndarray:
    """Share of the square that is covered with ink, of pictures `[N, 8, 8]` from 0 to 1.

    The scans are scaled to fill their square, so that more ink is a broader stroke.
    """
    share: np.ndarray = pixels.mean((1, 2))
    return share


def slant(pixels: np.ndarray) -> np.ndarray:
    """Shear of the ink of pictures `[N, H, W]`, positive where its top lies to the right.

    `-mu_11 / mu_02`: the line x(y) through the ink's centre that fits it best.
    """
    rows, columns = np.mgrid[: pixels.shape[1], : pixels.shape[2]]
    total = pixels.sum((1, 2))
    y = rows - ((pixels * rows).sum((1, 2)) / total)[:, None, None]
    x = columns - ((pixels * columns).sum((1, 2)) / total)[:, None, None]
    shear: np.ndarray = -(pixels * x * y).sum((1, 2)) / (pixels * y * y).sum((1, 2))
    return shear


class Digits(Source):
    """Rows `image, label, word, parity, stroke, slant, caption` of one split.

    order: `random` takes a stratified fifth for testing, drawn with `seed`; `writer` the last 360
    rows, whose writers are not among the others (harder; `seed` plays no part).
    image: `[8, 8]` uint8, ink bright. stroke: `bold` above the median ink of all 1,797 scans,
    else `thin`. slant: `leaning left`, `upright` or `leaning right`.
    """

    columns = ("image", "label", "word", "parity", "stroke", "slant", "caption")

    def __init__(
        self,
        *,
        split: Literal["train", "test"],
        order: Literal["random", "writer"] = "random",
        seed: Count = 0,
    ) -> None:
        self.split, self.order, self.seed = split, order, seed
        labels = _digits()[1]
        rows = np.arange(len(labels))
        if order == "writer":
            train, test = rows[:-WRITER_TEST], rows[-WRITER_TEST:]
        else:
            train, test = train_test_split(rows, test_size=0.2, stratify=labels, random_state=seed)
        self.rows = np.sort(test if split == "test" else train)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        images, labels, strokes, slants = _digits()
        row = self.rows[index]
        label = int(labels[row])
        facts = {
            "word": WORDS[label],
            "parity": "odd" if label % 2 else "even",
            "stroke": strokes[row],
            "slant": slants[row],
        }
        caption = "a handwritten {word}, {parity}, {stroke}, {slant}".format(**facts)
        return {"image": images[row], "label": label, **facts, "caption": caption}

    def key(self, index: int) -> str:
        return f"digits/{self.rows[index]}"

    def fingerprint(self) -> str:
        images, labels, strokes, slants = _digits()
        digest = hashlib.sha256(images.tobytes() + labels.tobytes() + self.rows.tobytes())
        digest.update(" ".join((*WORDS, *strokes, *slants)).encode())
        return digest.hexdigest()


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Pictures `[N, 8, 8]` uint8, labels `[N]`, and each scan's stroke and slant."""
    loaded = load_digits()
    pixels = loaded.images / 16
    images = np.rint(pixels * 255).astype(np.uint8)
    cover, shear = ink(pixels), slant(pixels)
    strokes = np.where(cover > np.median(cover), "bold", "thin").tolist()
    leaning = np.where(shear > LEAN, "leaning right", "upright")
    return images, loaded.target, strokes, np.where(shear < -LEAN, "leaning left", leaning).tolist()
