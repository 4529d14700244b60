"""`digits` and `shapes`: every word of a caption follows from the picture, splits are exact."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sensorium.modalities.image.datasets.digits import WORDS, Digits, ink, slant
from sensorium.modalities.image.datasets.shapes import COLOURS, HELD_OUT, RELATIONS, SHAPES, Shapes
from sensorium.modalities.image.read import read

SPLITS = ("train", "test", "held_out")


@functools.cache
def rows(split: Any) -> list[dict[str, Any]]:
    source = Shapes(split=split, count=1500)
    return [source[i] for i in range(len(source))]


@pytest.mark.parametrize("order", ["random", "writer"])
def test_digits_splits_share_nothing_and_miss_nothing(order: Any) -> None:
    train, test = Digits(split="train", order=order), Digits(split="test", order=order)
    assert sorted([*train.rows, *test.rows]) == list(range(1797))
    assert len(test) == 360
    if order == "writer":
        assert list(test.rows) == list(range(1437, 1797))
    else:
        shares = np.bincount([test[i]["label"] for i in range(360)]) / np.bincount(
            load_digits().target
        )
        assert np.abs(shares - 0.2).max() < 0.01


def test_digits_rows_are_scikit_learns() -> None:
    loaded, source = load_digits(), Digits(split="test")
    pixels = loaded.images / 16
    median = np.median(ink(pixels))
    leans = slant(pixels)
    for i in range(0, len(source), 7):
        row, at = source[i], source.rows[i]
        assert tuple(row) == Digits.columns
        assert np.abs(row["image"] / 255 * 16 - loaded.images[at]).max() < 0.05
        assert row["label"] == loaded.target[at]
        assert row["word"] == WORDS[row["label"]]
        assert row["stroke"] == ("bold" if ink(pixels)[at] > median else "thin")
        assert (row["slant"] == "leaning right") == (leans[at] > 0.1)
        assert (row["slant"] == "leaning left") == (leans[at] < -0.1)
        assert row["caption"] == (
            f"a handwritten {row['word']}, {'odd' if row['label'] % 2 else 'even'}, "
            f"{row['stroke']}, {row['slant']}"
        )
        assert read(row["image"]).size == (8, 8)
        assert source.key(i) == f"digits/{at}"


def test_slant_follows_a_shear() -> None:
    """A mirrored picture leans the other way; a sheared bar has the slant of its shear."""
    pixels = load_digits().images / 16
    assert np.allclose(slant(pixels[:, :, ::-1]), -slant(pixels))
    bar = np.zeros((1, 40, 40))
    for y in range(40):
        bar[0, y, 20 - round(0.25 * (y - 20))] = 1
    assert slant(bar)[0] == pytest.approx(0.25, abs=0.01)


def test_every_word_of_the_digits_is_common_enough_to_learn() -> None:
    source = Digits(split="train")
    for column in ("stroke", "slant", "parity", "word"):
        _, counts = np.unique([source[i][column] for i in range(len(source))], return_counts=True)
        assert counts.min() / len(source) > 0.05


def test_fingerprints_tell_sources_apart_and_stay() -> None:
    def digits(**options: Any) -> str:
        return Digits(**{"split": "train", **options}).fingerprint()

    def shapes(**options: Any) -> str:
        return Shapes(**{"split": "train", **options}).fingerprint()

    assert digits() == digits()
    assert shapes() == shapes()
    assert len({digits(), digits(split="test"), digits(seed=1), digits(order="writer")}) == 4
    changes = [{}, {"split": "test"}, {"seed": 1}, {"count": 5}, {"size": 32}]
    assert len({shapes(**c) for c in changes}) == len(changes)


def test_shapes_are_the_same_whenever_they_are_made() -> None:
    one, two = Shapes(split="test", seed=4), Shapes(split="test", seed=4, count=50)
    for i in (17, 3, 17):
        assert np.array_equal(one[i]["image"], two[i]["image"])
        assert {**one[i], "image": 0} == {**two[i], "image": 0}
    assert not np.array_equal(one[3]["image"], Shapes(split="test", seed=5)[3]["image"])
    with pytest.raises(IndexError):
        two[50]


@pytest.mark.slow
def test_no_caption_of_the_other_splits_occurs_in_train() -> None:
    captions = {split: {row["caption"] for row in rows(split)} for split in SPLITS}
    assert not captions["train"] & captions["test"]
    assert not (captions["train"] | captions["test"]) & captions["held_out"]
    assert min(len(c) for c in captions.values()) > 300


@pytest.mark.slow
def test_held_out_pairs_are_shown_there_and_nowhere_else() -> None:
    def pairs(row: dict[str, Any]) -> set[tuple[str, str]]:
        return {(thing["colour"], thing["shape"]) for thing in row["objects"]}

    held = set(HELD_OUT)
    assert all(pairs(row) & held for row in rows("held_out"))
    for split in ("train", "test"):
        assert not any(pairs(row) & held for row in rows(split))
    shown = set().union(*(pairs(row) for row in rows("train")))
    assert shown == {(c, s) for c in COLOURS for s in SHAPES} - held


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("split", SPLITS)
def test_a_caption_says_what_its_picture_shows(split: str) -> None:
    for row in rows(split)[:300]:
        image, things = row["image"], row["objects"]
        json.dumps([things, row["relation"]])
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.uint8
        for thing in things:
            assert 0.15 <= thing["x"] <= 0.85
            assert 0.15 <= thing["y"] <= 0.85
            centre = image[round(thing["y"] * 64), round(thing["x"] * 64)].astype(int)
            assert np.abs(centre - COLOURS[thing["colour"]]).max() <= 12
        phrases = [f"a {t['size']} {t['colour']} {t['shape']}" for t in things]
        assert row["caption"] == f" {row['relation']} ".join(phrases)
        if len(things) == 2:
            first, second = things
            dx, dy = first["x"] - second["x"], first["y"] - second["y"]
            assert min(abs(dx), abs(dy)) * 10 < max(abs(dx), abs(dy))
            along = np.array([dx, dy]) @ RELATIONS[row["relation"]]
            assert along > 0.25
            off = [np.hypot(t["x"] - 0.5, t["y"] - 0.5) for t in things]
            assert off[0] > off[1] + 0.2  # the one in the middle is named second


def test_two_shapes_do_not_touch() -> None:
    """Somewhere between their centres lies the ground (as in the corner)."""
    for row in rows("train")[:300]:
        if len(row["objects"]) == 2:
            ends = np.array([[t["y"], t["x"]] for t in row["objects"]]) * 64
            line = np.linspace(*ends, 50).astype(int)
            seen = row["image"][line[:, 0], line[:, 1]].astype(int)
            assert np.abs(seen - row["image"][0, 0].astype(int)).sum(1).min() <= 3


def test_colours_lie_apart() -> None:
    colours = np.array(list(COLOURS.values()), float)
    gaps = np.linalg.norm(colours[:, None] - colours, axis=2) + 1e9 * np.eye(len(colours))
    assert gaps.min() > 60


def test_wrong_arguments_of_shapes() -> None:
    with pytest.raises(ValueError, match="count 0, size 64"):
        Shapes(split="train", count=0)
