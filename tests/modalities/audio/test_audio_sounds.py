"""`sounds`: what a caption says is what is heard, in that order, and splits are exact."""

from __future__ import annotations

import functools
import itertools
import json
from typing import Any

import numpy as np
import pytest

from sensorium.modalities.audio.datasets.sound_events import (
    EVENTS,
    LENGTHS,
    MAKERS,
    PITCHES,
    RATE,
    Event,
)
from sensorium.modalities.audio.datasets.synthetic_sounds import (
    HELD_OUT,
    KINDS,
    Scene,
    Sounds,
    caption,
)
from sensorium.modalities.audio.read import read
from sensorium.testing.common import copy_for_worker

SPLITS = ("train", "test", "held_out")


@functools.cache
def rows(split: Any) -> list[dict[str, Any]]:
    source = Sounds(split=split, count=1500)
    return [source[i] for i in range(len(source))]


def heard(event: Event, seed: int = 0) -> np.ndarray:
    return read(Scene((event,), seed)).samples[0]


def bursts(samples: np.ndarray, quiet: float) -> np.ndarray:
    """Lengths in seconds of what is loud, where pauses are longer than `quiet` seconds."""
    loud = np.flatnonzero(np.abs(samples) > 0.04)
    cuts = np.flatnonzero(np.diff(loud) > quiet * RATE)
    ends = np.stack([loud[np.r_[0, cuts + 1]], loud[np.r_[cuts, -1]]])
    return (ends[1] - ends[0]) / RATE


def centre(samples: np.ndarray) -> float:
    """The mean frequency of the power, in Hz."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    return float(power @ np.fft.rfftfreq(len(samples), 1 / RATE) / power.sum())


def test_there_are_thousands_of_captions_and_every_event_is_heard_in_training() -> None:
    captions = {row["caption"] for split in SPLITS for row in rows(split)}
    assert len(captions) > 2000
    assert {e["phrase"] for row in rows("train") for e in row["events"]} == {
        event.phrase for event in EVENTS
    }
    assert len({event.phrase for event in EVENTS}) == len(EVENTS)
    assert {event.kind for event in EVENTS} == set(MAKERS) == set(KINDS)


@pytest.mark.parametrize("split", SPLITS)
def test_a_caption_names_the_events_in_their_order(split: str) -> None:
    for row in rows(split)[:200]:
        assert tuple(row) == Sounds.columns
        json.dumps(row["events"])
        assert row["caption"] == ", then ".join(event["phrase"] for event in row["events"])
        assert row["caption"] == caption(row["audio"].events)
        kinds = [event["kind"] for event in row["events"]]
        assert 1 <= len(kinds) <= 3
        assert all(one != two for one, two in itertools.pairwise(kinds))


def test_no_caption_of_the_other_splits_occurs_in_train() -> None:
    captions = {split: {row["caption"] for row in rows(split)} for split in SPLITS}
    assert not captions["train"] & captions["test"]
    assert not (captions["train"] | captions["test"]) & captions["held_out"]


def test_held_out_neighbours_meet_there_and_nowhere_else() -> None:
    for split in SPLITS:
        for row in rows(split):
            kinds = [event["kind"] for event in row["events"]]
            met = set(itertools.pairwise(kinds)) & set(HELD_OUT)
            assert bool(met) == (split == "held_out")


@pytest.mark.parametrize("split", SPLITS)
def test_distinct_captions(split: Any) -> None:
    source = Sounds(split=split, count=300, distinct=True)
    assert len({source[i]["caption"] for i in range(300)}) == 300
    assert all(source[i]["caption"] for i in (0, 299))


def test_too_many_distinct_captions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium.modalities.audio.datasets.synthetic_sounds.TRIES", 2)
    with pytest.raises(ValueError, match=r"^count: found 2000 rows with distinct captions"):
        Sounds(split="test", count=2000, distinct=True)[0]
    with pytest.raises(ValueError, match=r"^count: found 0"):
        Sounds(split="test", count=0)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.phrase)
def test_what_is_heard_is_what_is_said(event: Event) -> None:
    for seed in range(3):
        samples = heard(event, seed)
        assert np.abs(samples).max() <= 1
        count = len(bursts(samples, 0.05))
        if event.kind == "clicks" or event.kind == "beeps":
            assert count == event.count
        if event.first in LENGTHS:
            low, high = LENGTHS[event.first]
            assert low * 0.9 <= bursts(samples, 0.1)[0] <= high * 1.05
        pitch = next((p for p in (event.first, event.second) if p in PITCHES), None)
        if pitch is not None:
            low, high = PITCHES[pitch]
            assert 0.9 * low <= centre(samples) <= 1.4 * high


def test_a_sweep_goes_its_way_and_a_hiss_lies_above_a_rumble() -> None:
    for event in EVENTS:
        samples = heard(event)
        loud = samples[np.abs(samples) > 0.01]
        halves = [centre(part) for part in np.array_split(loud, 2)]
        if event.kind == "sweep":
            assert (halves[1] > 1.5 * halves[0]) == (event.second == "rising")
            assert (halves[0] > 1.5 * halves[1]) == (event.second == "falling")
        if event.kind == "noise":
            assert (centre(samples) > 2500) == (event.second == "hiss")


def test_a_row_is_the_same_whenever_it_is_made() -> None:
    one, two = Sounds(split="test", seed=4), Sounds(split="test", seed=4, count=50)
    for index in (17, 3, 17):
        assert one[index] == two[index]
        cell = copy_for_worker(one[index]["audio"])
        assert np.array_equal(read(cell).samples, read(two[index]["audio"]).samples)
    assert one[3] != Sounds(split="test", seed=5)[3]
    with pytest.raises(IndexError):
        two[50]
    changes: list[dict[str, Any]] = [{}, {"split": "train"}, {"seed": 1}, {"distinct": True}]
    built = [Sounds(**{"split": "test", "count": 50, **c}) for c in changes]
    assert len({source.fingerprint() for source in built}) == len(changes)
    assert len({source.key(1) for source in built}) == len(changes)
