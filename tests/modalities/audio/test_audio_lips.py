"""`talker_lips`: a mouth that follows the phonemes, as long as the sound that it goes with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sensorium.modalities.audio.datasets import Talker
from sensorium.modalities.audio.datasets.espeak import Voice
from sensorium.modalities.audio.datasets.espeak_voices import ACCENTS
from sensorium.modalities.audio.datasets.grammar import GRAMMARS
from sensorium.modalities.audio.datasets.synthetic_lips import (
    MOUTHS,
    REST,
    SIDE,
    Lips,
    TalkerLips,
    _shapes,
)
from sensorium.modalities.audio.datasets.synthetic_speech import Speech
from sensorium.modalities.audio.read import read
from sensorium.testing.common import copy_for_worker

VOICE = Voice("en-us", "m1")


def said(text: str, accent: str = "en-us") -> Lips:
    return Lips(Speech((text,), Voice(accent, "m1"), (0.2, 0.2), -25.0, None, 0))


@pytest.mark.parametrize("join", [[1, 1], [0, 0], [2, 3]])
def test_the_clip_is_as_long_as_the_sound(join: list[int]) -> None:
    source = TalkerLips(split="train", join=join, count=4)
    for index in range(4):
        row = source[index]
        assert tuple(row) == TalkerLips.columns
        clip = np.asarray(row["lips"])
        assert clip.dtype == np.uint8
        assert clip.shape[1:] == (SIDE, SIDE, 3)
        assert len(clip) == max(1, round(read(row["audio"]).seconds * row["lips"].fps))
        assert np.array_equal(clip, np.asarray(copy_for_worker(row["lips"])))


def test_the_words_are_the_talkers_and_the_sound_is_noisy() -> None:
    plain, lips = Talker(split="test", snr=0.0), TalkerLips(split="test")
    for index in range(5):
        one, other = plain[index], lips[index]
        assert one["text"] == other["text"]
        assert np.array_equal(read(one["audio"]).samples, read(other["audio"]).samples)
    assert plain.fingerprint() != lips.fingerprint()


@pytest.mark.parametrize("accent", ACCENTS)
def test_every_phoneme_has_a_mouth_of_its_own_class(accent: str) -> None:
    words = sorted(GRAMMARS["sentences"].vocabulary | GRAMMARS["commands"].vocabulary)[::3]
    texts = tuple(" ".join(words[i : i + 20]) for i in range(0, len(words), 20))
    speech = Speech(texts, Voice(accent, "m1"), (0.0,) * (len(texts) + 1), 0, None, 0)
    names = {name for _, spoken in speech.utterance_starts()[0] for name, _ in spoken.phonemes}
    silent = {name for name in names if next(_shapes(name)) == REST}
    assert {name.strip("_:!;?|~=") for name in silent} == {""}
    assert all(0 <= value <= 1 for mouth in MOUTHS.values() for value in mouth)


def test_lips_close_for_a_labial_and_open_for_a_vowel() -> None:
    """`mama`: shut, open, shut, open, with rest around them."""
    track = said("mama").mouths()[:, 0]
    assert track[0] < 0.1
    assert track[-1] < 0.1
    assert track.max() > 0.5
    inner = track[np.argmax(track > 0.3) : len(track) - np.argmax(track[::-1] > 0.3)]
    assert inner.min() < 0.25


def test_round_and_spread_vowels_look_different() -> None:
    def widest(text: str, pick: Any) -> float:
        return float(pick(said(text).mouths()[:, 1]))

    assert widest("moo", np.min) < 0.25
    assert widest("me", np.max) > 0.8


def test_a_shut_mouth_shows_no_hole_and_silence_moves_nothing() -> None:
    still = np.asarray(Lips(Speech((), VOICE, (1.0,), -25.0, None, 0)))
    assert (still == still[0]).all()
    open_ = np.asarray(said("mama"))
    middle = open_[:, SIDE // 2, SIDE // 2].astype(int).sum(1)
    assert middle.min() < 100 < middle[0]
    corner = open_[:, 0, 0]
    assert (corner == corner[0]).all()
