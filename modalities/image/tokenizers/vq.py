"""Pictures as codes of a codebook of patches, with size and row markers.

Legend: `H`, `W` px, `h`, `w` patches, `p` px of a side of a patch, `K` codes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from PIL import Image
from torch import Tensor

from ...base import PositiveInt
from ...signal_tokens import Codebook
from .encoder import ImageTokenizer
from .layout import GridLayout


class PatchVQ(ImageTokenizer):
    """Each patch is the nearest of `codes` patches, the centroids of k-means over the training
    pictures.

    codes: patches of the codebook. patch: px of a side. resize: height and width that pictures are
    brought to; None: their own, repeated at the right and the bottom up to whole patches.
    max_side: the most patches of a side. Decoding returns the picture of the centroids.
    """

    def __init__(
        self,
        *,
        codes: Annotated[int, Ge(2)] = 256,
        patch: PositiveInt = 4,
        resize: tuple[PositiveInt, PositiveInt] | None = None,
        max_side: PositiveInt = 64,
    ) -> None:
        if resize is not None and any(side % patch for side in resize):
            raise ValueError(
                f"resize: found {resize[0]} x {resize[1]}, expected multiples of patch, {patch} px"
            )
        self.codes, self.patch, self.resize, self.max_side = codes, patch, resize, max_side
        self.layout = GridLayout(codes, max_side)
        self.size = self.layout.size
        self._codebook: Codebook | None = None

    def fit(self, rows: Iterable[Any]) -> None:
        """Fit the codebook on pictures. Raise ValueError if too few patches differ."""
        book = Codebook.fit((self._patches(row)[0] for row in rows), self.codes)
        self.load_state({"patches": _whole_distinct(book.vectors)})

    def encode(self, signals: Sequence[Image.Image]) -> list[Tensor]:
        """Return ids `[h (w + 1) + 4]` of each picture."""
        return [self.layout.serialize(self.quantize(picture)) for picture in signals]

    def decode(self, ids: Sequence[Tensor]) -> list[Image.Image]:
        """Return the picture of each row of ids. Raise ValueError, with the position, for ids that
        are no picture."""
        return [self.picture(self.layout.parse(row)) for row in ids]

    def next_ids(self, ids: Sequence[int]) -> tuple[Collection[int], bool]:
        return self.layout.next_ids(ids)

    def quantize(self, picture: Image.Image) -> Tensor:
        """Return the codes `[h, w]` of a picture."""
        patches, (height, width) = self._patches(picture)
        return self._fitted().nearest(torch.from_numpy(patches)).view(height, width)

    def picture(self, grid: Tensor) -> Image.Image:
        """codes `[h, w]` -> the picture of `h p` x `w p` px."""
        patches = self._fitted().vectors[grid.numpy()].astype(np.uint8)  # [h, w, p p 3]
        height, width = grid.shape
        blocks = patches.reshape(height, width, self.patch, self.patch, 3).swapaxes(1, 2)
        return Image.fromarray(blocks.reshape(height * self.patch, width * self.patch, 3))

    def _patches(self, picture: Any) -> tuple[np.ndarray, tuple[int, int]]:
        """Return the patches `[h w, p p 3]` of a picture, and `(h, w)`."""
        if not isinstance(picture, Image.Image):
            raise ValueError(f"vq: reads single pictures, found {type(picture).__name__}")
        picture = picture.convert("RGB")
        if self.resize is not None:
            height, width = self.resize
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        array = np.asarray(picture)
        missing = [(0, -side % self.patch) for side in array.shape[:2]]
        array = np.pad(array, (*missing, (0, 0)), mode="edge")
        height, width = (side // self.patch for side in array.shape[:2])
        blocks = array.reshape(height, self.patch, width, self.patch, 3).swapaxes(1, 2)
        return blocks.reshape(height * width, -1).astype(np.float32), (height, width)

    def _fitted(self) -> Codebook:
        if self._codebook is None:
            raise ValueError("vq: used before fit; fit it, or load a saved one")
        return self._codebook

    def state(self) -> dict[str, Any]:
        """Return `patches [K, p p 3]` uint8."""
        return {"patches": self._fitted().vectors.astype(np.uint8)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        expected = (self.codes, self.patch**2 * 3)
        if state["patches"].shape != expected:
            raise ValueError(
                f"vq: the saved codebook is {state['patches'].shape}, these options use {expected}"
            )
        self._codebook = Codebook(state["patches"])


def _whole_distinct(vectors: np.ndarray) -> np.ndarray:
    """Return centroids as whole numbers of a pixel, so that a decoded picture is coded as it was;
    where two become equal, one is moved by 1 in its first free number."""
    whole = np.rint(vectors).clip(0, 255).astype(np.uint8)
    taken: set[bytes] = set()
    for row in whole:
        place = 0
        while row.tobytes() in taken:
            row[place] = row[place] - 1 if row[place] else 1
            place = (place + 1) % len(row)
        taken.add(row.tobytes())
    return whole
