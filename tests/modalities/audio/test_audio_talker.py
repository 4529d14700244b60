"""`talker`: what it says is what it wrote, splits are exact, and it never varies."""

from __future__ import annotations

import functools
import itertools
import json
import subprocess
import sys
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest

from sensorium.modalities.audio.datasets import Talker
from sensorium.modalities.audio.datasets.espeak import Voice, library, pronounce, speak
from sensorium.modalities.audio.datasets.espeak_voices import (
    ACCENTS,
    HELD_ACCENTS,
    HELD_VARIANTS,
    VARIANTS,
)
from sensorium.modalities.audio.datasets.grammar import GRAMMARS, LONGEST, SHORTEST, held_pairs
from sensorium.modalities.audio.datasets.synthetic_speech import RATE
from sensorium.modalities.audio.read import read
from sensorium.modalities.base import ReadError
from sensorium.testing.common import copy_for_worker

NAMES = ("commands", "sentences")
HOLDS: list[Any] = [[], ["voices"], ["accents"], ["sentences"], ["voices", "accents", "sentences"]]


@functools.cache
def rows(grammar: Any, split: Any, *hold: Any) -> list[dict[str, Any]]:
    chosen = list(hold) if split == "test" else None
    source = Talker(grammar=grammar, split=split, hold=chosen, count=1000)
    return [source[i] for i in range(len(source))]


def pairs(row: dict[str, Any]) -> set[tuple[str, str]]:
    return set(itertools.pairwise(row["text"].split()))


@pytest.mark.parametrize(("name", "least", "most"), [("commands", 61, 61), ("sentences", 300, 999)])
def test_a_grammar_says_all_of_its_words_and_no_other(name: str, least: int, most: int) -> None:
    words = {word for row in rows(name, "train") for word in row["text"].split()}
    assert words == GRAMMARS[name].vocabulary
    assert least <= len(words) <= most


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("accent", ACCENTS)
def test_no_two_words_sound_the_same(name: str, accent: str) -> None:
    words = sorted(GRAMMARS[name].vocabulary)
    sounds = [s.replace("ˈ", "").replace("ˌ", "") for s in pronounce(words, accent)]
    assert len(set(sounds)) == len(words)


def test_sentences_are_as_long_as_they_should_be() -> None:
    for split in ("train", "test"):
        lengths = [row["words"] for row in rows("sentences", split)]
        assert min(lengths) >= SHORTEST == 8
        assert max(lengths) <= LONGEST == 25
        assert sum(lengths) >= 10_000


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hold", HOLDS, ids=lambda hold: "+".join(hold) or "nothing")
def test_a_test_split_holds_out_what_it_says_and_no_more(name: str, hold: list[str]) -> None:
    test, train = rows(name, "test", *hold), rows(name, "train")
    for column, held, all_ in (
        ("variant", HELD_VARIANTS, VARIANTS),
        ("accent", HELD_ACCENTS, ACCENTS),
    ):
        known = set(all_) - set(held)
        assert {row[column] for row in train} == known
        expected = set(held) if f"{column}s".replace("variant", "voice") in hold else known
        assert {row[column] for row in test} == expected
    fresh = {row["text"] for row in test} - {row["text"] for row in train}
    if "sentences" in hold:
        assert len(fresh) == len({row["text"] for row in test})
    held_out = GRAMMARS[name].held_out
    assert all(held_out(row["text"]) == ("sentences" in hold) for row in test)
    assert not any(held_out(row["text"]) for row in train)


def test_held_out_pairs_are_of_words_that_training_says() -> None:
    train = rows("sentences", "train")
    trained = set().union(*map(pairs, train))
    words = {word for row in train for word in row["text"].split()}
    for row in rows("sentences", "test", "sentences"):
        held = held_pairs(row["text"])
        assert held
        assert not set(held) & trained
        assert {word for pair in held for word in pair} <= words


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_plain_but_for_its_sound(name: str) -> None:
    row = rows(name, "train")[5]
    assert tuple(row) == Talker.columns
    json.dumps({k: v for k, v in row.items() if k not in ("audio", "parts")})
    sound = read(row["audio"])
    assert sound.rate == RATE
    assert sound.samples.shape[0] == 1
    assert row["seconds"] == pytest.approx(sound.seconds, rel=0.5)


def test_the_estimated_seconds_sort_like_the_real_ones() -> None:
    some = rows("commands", "train")[:40] + rows("sentences", "train")[:10]
    real = [read(row["audio"]).seconds for row in some]
    assert np.corrcoef(real, [row["seconds"] for row in some])[0, 1] > 0.9


@pytest.mark.slow
def test_a_recording_is_the_same_in_any_order_and_process() -> None:
    source = Talker(split="train", snr=10.0, count=12)
    local = [read(source[i]["audio"]).samples for i in range(12)]
    speak.cache_clear()
    again = [read(source[i]["audio"]).samples for i in reversed(range(12))]
    assert all(np.array_equal(a, b) for a, b in zip(local, reversed(again), strict=True))
    for method in ("fork", "spawn"):
        with get_context(method).Pool(1) as pool:
            remote = pool.map(read, [source[i]["audio"] for i in (3, 1)])
        assert np.array_equal(remote[0].samples, local[3])
        assert np.array_equal(remote[1].samples, local[1])


@pytest.mark.slow
def test_every_variant_and_accent_can_be_heard() -> None:
    voices = [Voice("en-us", name) for name in VARIANTS]
    voices += [Voice(name, "m1") for name in ACCENTS[1:]]
    utterances = [speak("seven green boxes", voice) for voice in voices]
    assert all(utterance.rate == RATE for utterance in utterances)
    loud = [np.abs(utterance.samples).max() for utterance in utterances]
    assert min(loud) > 1000
    assert len({utterance.samples.tobytes() for utterance in utterances}) == len(voices)


@pytest.mark.parametrize("snr", [-5.0, 0.0, 10.0, 20.0])
def test_noise_has_the_stated_level(snr: float) -> None:
    clean, noisy = Talker(split="train", seed=3), Talker(split="train", seed=3, snr=snr)
    for index in range(4):
        one = clean.speech(index)
        other = noisy.speech(index)
        assert one.texts == other.texts
        a, b = one.sound().samples[0].astype(float), other.sound().samples[0].astype(float)
        gain = (a @ b) / (a @ a)  # below 1 where the mixture would have been clipped
        count = np.count_nonzero(a)
        noise = ((b - gain * a) ** 2).mean()
        result = 10 * np.log10(gain**2 * (a**2).sum() / count / noise)
        assert result == pytest.approx(snr, abs=1.0)


def test_joined_rows_hold_their_parts() -> None:
    source = Talker(split="train", join=[2, 4], count=20)
    result = {len(source[i]["parts"]) for i in range(20)}
    assert result == {2, 3, 4}
    row = source[1]
    assert row["text"] == " ".join(part["text"] for part in row["parts"])
    whole = read(row["audio"])
    single = [read(part["audio"]) for part in row["parts"]]
    assert whole.seconds > sum(part.seconds for part in single) - 1.2 * len(single)
    spoken = np.concatenate([part.samples[part.samples != 0] for part in single])
    assert np.array_equal(whole.samples[whole.samples != 0], spoken)


def test_no_utterance_is_silence_or_noise() -> None:
    for snr in (None, 10.0):
        source = Talker(split="train", join=[0, 0], count=2, snr=snr)
        row = source[0]
        assert (row["text"], row["words"], row["parts"]) == ("", 0, [])
        sound = read(row["audio"]).samples
        assert bool(np.any(sound)) == (snr is not None)


def test_names_and_fingerprints_tell_sources_apart() -> None:
    def made(**options: Any) -> Talker:
        return Talker(**{"split": "test", "count": 9, **options})

    changes: list[dict[str, Any]] = [
        {},
        {"split": "train"},
        {"hold": ["accents"]},
        {"seed": 1},
        {"snr": 10.0},
        {"snr": [0.0, 10.0]},
        {"count": 8},
        {"grammar": "sentences"},
        {"join": [1, 2]},
    ]
    assert len({made(**change).fingerprint() for change in changes}) == len(changes)
    assert made().fingerprint() == made(hold=["sentences", "voices"]).fingerprint()
    assert made().key(3) == "talker/commands/test/voices/sentences/0/3"
    with pytest.raises(IndexError):
        made()[9]
    cell = made()[2]["audio"]
    assert copy_for_worker(cell) == cell


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"count": 0}, "count: found 0"),
        ({"snr": [10.0, 0.0]}, "snr: found"),
        ({"join": [3, 1]}, "join: found"),
        ({"join": [-1, 1]}, "join: found -1"),
        ({"split": "train", "hold": ["voices"]}, "hold: found"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=f"^{wrong}"):
        Talker(**{"split": "test", **options})


def test_a_voice_that_is_not_there_is_named() -> None:
    with pytest.raises(ReadError, match="no such voice"):
        speak("hello", Voice("en-atlantis", "m1"))


def test_without_espeak_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    library.cache_clear()
    try:
        with pytest.raises(ReadError, match=r"sensorium\[talker\]"):
            Talker(split="train")
    finally:
        library.cache_clear()


@pytest.mark.slow
def test_opening_a_source_loads_no_library() -> None:
    code = (
        "import sys; from sensorium.modalities.audio.datasets.synthetic_speech import Talker; "
        "source = Talker(split='train'); row = source[3]; source.key(3); "
        "print('espeakng_loader' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
