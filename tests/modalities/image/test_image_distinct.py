"""`shapes` with distinct captions."""

from __future__ import annotations

import numpy as np
import pytest

from sensorium.modalities.image.datasets.shapes import HELD_OUT, Shapes


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test", "held_out"])
def test_no_caption_comes_twice(split: str) -> None:
    source = Shapes(split=split, count=300, distinct=True)
    captions = [source[i]["caption"] for i in range(300)]
    assert len(set(captions)) == 300
    plain = [Shapes(split=split, count=300)[i]["caption"] for i in range(300)]
    assert len(set(plain)) < 300
    assert sum(a == b for a, b in zip(captions, plain, strict=True)) > 150  # the rest stays
    shown = [{(o["colour"], o["shape"]) for o in source[i]["objects"]} for i in range(300)]
    assert all(bool(pairs & set(HELD_OUT)) == (split == "held_out") for pairs in shown)


def test_rows_are_the_same_in_any_order_and_number() -> None:
    one, two = (Shapes(split="test", count=n, distinct=True) for n in (60, 200))
    for i in (59, 3, 3):
        assert one[i]["caption"] == two[i]["caption"]
        assert np.array_equal(one[i]["image"], two[i]["image"])
    assert one.fingerprint() != Shapes(split="test", count=60).fingerprint()
    assert one.key(3) != Shapes(split="test", count=60).key(3)


def test_more_captions_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium.modalities.image.datasets.shapes.TRIES", 1)
    with pytest.raises(ValueError, match=r"300 rows with distinct captions, found \d+ in test"):
        Shapes(split="test", count=300, distinct=True)[0]
