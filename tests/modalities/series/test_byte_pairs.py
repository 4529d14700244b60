"""Series as tokens: nothing is lost after the quantization, and what is no series says where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.modalities.base import ReadError
from sensorium.modalities.series.datasets.ecg import Ecg
from sensorium.modalities.series.read import read
from sensorium.modalities.series.series import Series
from sensorium.modalities.series.tokenizers import BytePairs
from sensorium.modalities.signal_tokens import SignalTokenizer

NAMES = ("II", "V1")


@pytest.fixture(scope="module")
def recordings() -> list[Series]:
    source = Ecg(split="train", count=20, leads=list(NAMES), seconds=3, rate=50)
    return [read(row["series"]) for row in source]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def tokenizer(recordings: list[Series]) -> BytePairs:
    fitted = BytePairs(levels=12, merges=100)
    fitted.fit(recordings)
    return fitted


def random_series(rng: np.random.Generator) -> Series:
    """Any values, within the fitted range and far beyond, with gaps."""
    steps, kind = int(rng.integers(2, 60)), int(rng.integers(4))
    values = rng.normal(0, 10.0 ** rng.integers(-3, 3), (2, steps))
    if kind == 1:
        values = np.cumsum(values, 1)
    if kind == 2:
        values = np.round(values)
    if kind == 3:
        values[rng.random(values.shape) < 0.4] = np.nan
        values[0, 0] = 0.0
    return Series(values, 50.0, NAMES)


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_series_comes_back_as_it_was_quantized(tokenizer: BytePairs, count: int) -> None:
    rng = np.random.default_rng(0)
    rows = [random_series(rng) for _ in range(count)]
    ids = tokenizer.encode(rows)
    decoded = tokenizer.decode(ids)
    for row, each in zip(rows, decoded, strict=True):
        np.testing.assert_array_equal(each.values, tokenizer.quantize(row).values)
        assert each.channels == NAMES and each.rate == 50.0
    again = tokenizer.encode([d for d in decoded if d.mask.any()])
    expected = [i for i, d in zip(ids, decoded, strict=True) if d.mask.any()]
    assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))
    assert max(int(row.max()) for row in ids) < tokenizer.size


def test_a_value_is_off_by_half_a_level_at_most(
    tokenizer: BytePairs, recordings: list[Series]
) -> None:
    inside_all = []
    for series in recordings:
        quantized = tokenizer.quantize(series).values
        low, high = tokenizer._low[:, None], (tokenizer._low + 12 * tokenizer._width)[:, None]
        inside = (series.values >= low) & (series.values <= high)
        error = np.abs(quantized - series.values) / tokenizer._width[:, None]
        assert error[inside].max() <= 0.5 + 1e-9
        inside_all.append(inside.mean())
    assert np.mean(inside_all) > 0.99


def test_pairs_make_sequences_shorter(recordings: list[Series]) -> None:
    lengths = []
    for merges in (0, 20, 200):
        part = BytePairs(levels=12, merges=merges)
        part.fit(recordings)
        lengths.append(sum(map(len, part.encode(recordings))))
    assert lengths[0] == sum(2 + r.values.size for r in recordings)
    assert lengths[0] > 1.5 * lengths[1] and lengths[1] > 1.3 * lengths[2]


def test_what_may_follow_always_becomes_a_series(tokenizer: BytePairs) -> None:
    """A random walk over the ids that may follow decodes wherever it may end."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        ids: list[int] = []
        while True:
            following, may_end = tokenizer.next_ids(ids)
            if may_end:
                break
            choices = list(following)
            # The next channel as soon as it may begin, in half of the cases.
            begins = len(ids) > 0 and choices[0] < 2 and rng.random() < 0.5
            ids.append(choices[0] if begins else int(rng.choice(choices)))
            assert len(ids) < 400
        (series,) = tokenizer.decode([ids])
        assert series.values.shape[0] == 2 and not list(following)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda ids: ids[1:], "position 0: found {1}, expected 0, the channel II"),
        (lambda ids: [], "position 0: the sequence ends, expected 0, the channel II"),
        (lambda ids: ids[: ids.index(1)], "the sequence ends, expected 1, the channel V1"),
        (lambda ids: ids[:-1], "the channel V1 has"),
        (lambda ids: [*ids, 0], "expected the end"),
        (lambda ids: [*ids, 9999], "found 9999, expected 0 to"),
        (lambda ids: [0, 1], "the channel II has 0 samples, expected at least 2"),
    ],
)
def test_ids_of_no_series_say_where(
    tokenizer: BytePairs, recordings: list[Series], change: Any, line: str
) -> None:
    ids = tokenizer.encode(recordings[:1])[0].tolist()
    line = line.replace("{1}", str(ids[1]))
    with pytest.raises(ValueError) as error:
        tokenizer.decode([change(ids)])
    assert line in str(error.value) and "position" in str(error.value)


def test_it_is_saved_and_resampled(
    tokenizer: BytePairs, recordings: list[Series], tmp_path: Path
) -> None:
    tokenizer.save(tmp_path)
    other = SignalTokenizer.load(tmp_path)
    pairs = zip(other.encode(recordings), tokenizer.encode(recordings), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    coarse = BytePairs(rate=25.0, merges=5)
    coarse.fit(recordings)
    assert coarse.decode(coarse.encode(recordings[:1]))[0].steps == 75


def test_mistakes_are_one_line(tokenizer: BytePairs) -> None:
    with pytest.raises(ReadError, match="no channel 'V1'"):
        tokenizer.encode([Series(np.ones((1, 9)), 50.0, ("II",))])
    with pytest.raises(ValueError, match="used before fit"):
        BytePairs().state()
    rows = [Series(np.array([[1.0, 2.0], [np.nan, np.nan]]), 1.0, NAMES)]
    with pytest.raises(ValueError, match="the channel 'V1' has not one measured value"):
        BytePairs().fit(rows)
