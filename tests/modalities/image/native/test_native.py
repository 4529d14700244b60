"""Pictures of any sizes in one sequence: as alone, and as padded; folded by their own grids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sensorium.connectors.shorteners import PixelShuffle
from sensorium.modalities.base import Features, ReadError
from sensorium.modalities.image.native import NativeProcessor, NativeViT

SIZES = ((20, 44), (64, 16), (9, 9), (40, 40))
OPTIONS: dict[str, Any] = {"patch": 4, "merge": 2, "dim": 32, "depth": 2, "heads": 2}


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in SIZES]


@pytest.fixture(scope="module")
def made() -> tuple[NativeViT, dict[str, Tensor]]:
    torch.manual_seed(0)
    encoder = NativeViT(**OPTIONS).eval()
    return encoder, encoder.collate([encoder.processor.prepare(p) for p in pictures()])


def run(encoder: NativeViT, batch: dict[str, Tensor]) -> Features:
    with torch.no_grad():
        return encoder(**batch)


def test_packed_is_alone_and_is_padded(made: Any) -> None:
    encoder, batch = made
    together = run(encoder, batch)
    for row, picture in enumerate(pictures()):
        alone = run(encoder, encoder.collate([encoder.processor.prepare(picture)]))
        count = alone.tokens.shape[1]
        torch.testing.assert_close(
            together.tokens[row, :count], alone.tokens[0], atol=1e-5, rtol=1e-4
        )
        assert together.mask[row].sum() == count
    encoder.packed = False
    torch.testing.assert_close(run(encoder, batch).tokens, together.tokens, atol=1e-5, rtol=1e-4)
    encoder.packed = True


def test_a_picture_sees_itself_alone_and_where_its_patches_are(made: Any) -> None:
    encoder, batch = made
    before = run(encoder, batch).tokens
    other = {**batch, "patches": batch["patches"].clone()}
    other["patches"][0] += 1
    after = run(encoder, other).tokens
    assert not torch.allclose(before[0], after[0])
    torch.testing.assert_close(before[1:], after[1:], atol=1e-6, rtol=0)
    moved = run(encoder, {**batch, "place": batch["place"].flip(-1)}).tokens
    assert not torch.allclose(before[0], moved[0], atol=1e-4)


def test_no_patch_of_padding_is_computed(made: Any) -> None:
    encoder, batch = made
    rows: list[int] = []
    handle = encoder.layers[0].mlp.register_forward_hook(
        lambda _, args, __: rows.append(len(args[0]))
    )
    run(encoder, batch)
    handle.remove()
    assert rows == [int(batch["mask"].sum())]


def test_squares_are_folded_as_on_a_grid_of_its_own(made: Any) -> None:
    """The tokens of each picture are those of the connector on this picture's grid alone."""
    encoder, batch = made
    torch.manual_seed(0)
    connector = PixelShuffle(32, 8, factor=2)
    features = run(encoder, batch)
    folded = connector(features)
    for row, picture in enumerate(pictures()):
        height, width = encoder.processor.grid(picture.height, picture.width)
        tokens = features.tokens[row : row + 1, : height * width]
        expected = connector(Features.dense(tokens, grid=(height, width))).tokens[0]
        torch.testing.assert_close(folded.tokens[row, : len(expected)], expected)
        assert int(folded.mask[row].sum()) == len(expected) == height * width // 4


def test_an_odd_side_is_refused() -> None:
    place = torch.tensor([[[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]])
    features = Features.dense(torch.zeros(1, 6, 4), positions=place)
    with pytest.raises(ValueError, match="not divisible by factor 2; set merge: 2"):
        PixelShuffle(4, 4, factor=2)(features)


@pytest.mark.parametrize(
    ("height", "width"), [(3000, 20), (20, 3000), (900, 1200), (1, 1), (56, 28)]
)
def test_grids_keep_the_shape_within_the_limit(height: int, width: int) -> None:
    processor = NativeProcessor(patch=14, merge=2, max_patches=256)
    rows, columns = processor.grid(height, width)
    assert rows % 2 == columns % 2 == 0 and rows * columns <= 256
    if (height, width) == (56, 28):
        assert (rows, columns) == (4, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 20, "heads": 3}, "dim must be a multiple of 4 heads"),
        ({"max_patches": 3}, "expected 4 or more"),
    ],
)
def test_mistakes_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NativeViT(**options)


def test_a_clip_is_refused() -> None:
    with pytest.raises(ReadError, match="no single picture"):
        NativeProcessor(4, 2, 64).prepare("clip")
