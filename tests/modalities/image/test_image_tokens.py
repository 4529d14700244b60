"""Pictures and boxes as tokens: round trips, malformed sequences by position, the grammar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.modalities.base import ReadError
from sensorium.modalities.image.tokenizers import BoxTokenizer, GridLayout, PatchVQ
from sensorium.modalities.image.tokenizers.boxes import read
from sensorium.modalities.signal_tokens import Codebook, SignalTokenizer
from sensorium.testing import check_fittable

LAYOUT = GridLayout(codes=32, max_side=12)
SHARES = 20
EACH_SHARE = 10_000 // SHARES


def grid(rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.integers(0, 32, rng.integers(1, 13, 2)))


@pytest.fixture(scope="module")
def vq() -> PatchVQ:
    tokenizer = PatchVQ(codes=16, patch=2, max_side=8)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(20)]
    tokenizer.fit([Image.fromarray(p) for p in pictures])
    return tokenizer


@pytest.mark.quick_share(SHARES)
@pytest.mark.parametrize("share", range(SHARES))
def test_any_grid_parses_back(share: int) -> None:
    """10,000 grids of any sides in all shares."""
    rng = np.random.default_rng(share)
    for _ in range(EACH_SHARE):
        codes = grid(rng)
        assert torch.equal(LAYOUT.parse(LAYOUT.serialize(codes)), codes)


@pytest.mark.quick_share(SHARES)
@pytest.mark.parametrize("share", range(SHARES))
def test_a_changed_sequence_names_the_place(share: int) -> None:
    """One token of another kind, one too few, one too many: never a grid, always a position at or
    before which all is well."""
    rng = np.random.default_rng(share)
    for _ in range(EACH_SHARE // 10):
        ids = LAYOUT.serialize(grid(rng)).tolist()
        place = int(rng.integers(len(ids)))
        other = LAYOUT.row if ids[place] < LAYOUT.codes else 0
        for changed in (
            [*ids[:place], other, *ids[place + 1 :]],
            ids[:place],
            [*ids, int(rng.integers(LAYOUT.size))],
        ):
            with pytest.raises(ValueError, match=r"position \d+: .* expected ") as caught:
                LAYOUT.parse(changed)
            position = int(str(caught.value).split("position ")[1].split(":")[0])
            assert position <= len(changed)
            for k in range(position):
                assert changed[k] in LAYOUT.next_ids(changed[:k])[0]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0], "position 0: found code 0, expected <start>"),
        ([33, 34], "position 1: found <end>, expected a height"),
        ([33, 36, 37, 5, 5, 32], "position 5: found <row>, expected code 3 of 3 in row 1 of 2"),
        ([33, 35, 36, 5, 5, 5], "position 5: found code 5, expected <row> after row 1 of 1"),
        ([33, 35, 35, 5, 32, 5], "position 5: found code 5, expected <end> after 1 rows"),
        ([33, 35, 35, 5], "position 4: the sequence stops, expected <row>"),
        ([99], "position 0: found 99, expected 0 to 46"),
    ],
)
def test_what_stands_where(ids: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LAYOUT.parse(ids)


def test_any_walk_through_the_grammar_is_a_grid() -> None:
    """Only ids of codes stand between the markers, whatever is drawn."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        ids: list[int] = []
        while not LAYOUT.next_ids(ids)[1]:
            following = LAYOUT.next_ids(ids)[0]
            ids.append(int(rng.choice(list(following))))
        assert torch.equal(LAYOUT.serialize(LAYOUT.parse(ids)), torch.tensor(ids))


def test_pictures_of_codes_are_coded_as_they_were(vq: PatchVQ) -> None:
    rng = np.random.default_rng(1)
    grids = [torch.from_numpy(rng.integers(0, 16, rng.integers(1, 9, 2))) for _ in range(200)]
    ids = [vq.layout.serialize(g) for g in grids]
    for row, again in zip(ids, vq.encode(vq.decode(ids)), strict=True):
        assert torch.equal(row, again)


def test_a_picture_comes_back_within_its_codebook(vq: PatchVQ) -> None:
    """The nearest of all codes: no other picture of codes is nearer."""
    rng = np.random.default_rng(2)
    array = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    back = np.asarray(vq.decode(vq.encode([Image.fromarray(array)]))[0])
    assert back.shape == (6, 6, 3)  # whole patches
    patch = array[:2, :2].reshape(-1).astype(float)
    codes = vq.state()["patches"].astype(float)
    nearest = codes[((codes - patch) ** 2).sum(1).argmin()]
    np.testing.assert_array_equal(back[:2, :2].reshape(-1), nearest)


@pytest.mark.quick_share(SHARES)
@pytest.mark.parametrize("share", range(SHARES))
def test_boxes_come_back_within_half_a_bin(share: int) -> None:
    """And their tokens exactly: 10,000 boxes in all shares."""
    tokenizer = BoxTokenizer(bins=500, extent=200.0)
    rng = np.random.default_rng(share)
    corners = np.sort(rng.uniform(0, 200, (EACH_SHARE, 2, 2)), axis=1).reshape(-1, 4)
    ids = tokenizer.encode([corners])
    back = tokenizer.decode(ids)
    assert np.abs(np.array(back[0]) - corners).max() <= 0.2 + 1e-9
    assert torch.equal(tokenizer.encode(back)[0], ids[0])


def vq_of(size: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))] * 2


@pytest.mark.parametrize(
    ("cls", "options", "rows"),
    [
        (PatchVQ, {"codes": 4, "patch": 2}, vq_of(8)),
        (BoxTokenizer, {"bins": 10}, [[[0, 0, 5, 6]]]),
    ],
)
def test_they_meet_the_contract(
    cls: type[SignalTokenizer], options: dict[str, Any], rows: list[Any], tmp_path: Path
) -> None:
    check_fittable(cls, rows, **options)
    tokenizer = cls(**options)
    tokenizer.fit(rows)
    ids = tokenizer.encode(rows)
    assert all(int(row.max()) < tokenizer.size and int(row.min()) >= 0 for row in ids)
    tokenizer.save(tmp_path)
    again = SignalTokenizer.load(tmp_path)
    assert type(again) is cls
    for row, other in zip(ids, again.encode(rows), strict=True):
        assert torch.equal(row, other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PatchVQ(patch=4, resize=(10, 8)), "resize: found 10 x 8, expected multiples of"),
        (lambda: PatchVQ(codes=2).encode(vq_of(4)), "vq: used before fit"),
        (lambda: PatchVQ(codes=99, patch=4).fit(vq_of(8)), "codes: found 99, and .* 4 different"),
        (lambda: PatchVQ().fit(["text"]), "vq: reads single pictures, found str"),
        (lambda: LAYOUT.serialize(torch.zeros(3, 13)), "found a grid of 3 x 13, expected sides"),
        (lambda: BoxTokenizer().encode([[[0, 0, 1, 1]]]), "coordinates: used before fit"),
        (lambda: BoxTokenizer().fit([[]]), "the training split has no box"),
        (lambda: BoxTokenizer(extent=9.0).encode([[[0, 0, 1, 10]]]), "found 10.0 px, expected at"),
        (lambda: BoxTokenizer(extent=9.0).encode([[[2, 0, 1, 5]]]), "none before its opposite"),
        (lambda: BoxTokenizer(extent=9.0).encode([[[-1, 0, 1, 5]]]), "box 0 has -1.0, expected 0"),
        (lambda: BoxTokenizer(extent=9.0).decode([[1, 2, 3]]), "position 3: the sequence stops"),
        (lambda: BoxTokenizer(extent=9.0).decode([[5, 2, 3, 4]]), "position 2: found 3, expected"),
    ],
)
def test_mistakes_are_one_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_cells_that_are_no_boxes_are_named() -> None:
    with pytest.raises(ReadError, match="no list of boxes"):
        read("three")


def test_codebooks_hold_different_vectors() -> None:
    """Even of data with few values, and of more vectors than are kept."""
    rng = np.random.default_rng(0)
    blocks = [rng.integers(0, 3, (50, 2)).astype(float) for _ in range(20)]
    book = Codebook.fit(iter(blocks), 9, limit=100)
    assert len(np.unique(book.vectors, axis=0)) == 9
    assert torch.equal(book.nearest(torch.from_numpy(book.vectors)), torch.arange(9))
