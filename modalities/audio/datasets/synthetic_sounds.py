"""Generated sounds whose captions must be composed to be right: events and their order.

One to three events of different kinds: "a long rising tone, then three fast clicks, then a short
hiss". Pitches, lengths and speeds that a caption distinguishes are well apart in the sound, so that
a sound has one caption and finding it means something.

Legend: `N` samples.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ...base import Count, PositiveInt, Source
from ..read import LazySound, Sound
from .sound_events import EVENTS, MAKERS, RATE, Event, faded

KINDS = tuple(MAKERS)
_OF_KIND = {kind: [event for event in EVENTS if event.kind == kind] for kind in KINDS}
GAP = (0.2, 0.3)
"""Seconds of silence between events."""

COUNTS = (0.1, 0.55)
"""Share of the sounds with one event, and with at most two; the others have three."""

HELD_OUT = (("beeps", "noise"), ("wobble", "sweep"), ("noise", "tone"))
"""Kinds that never follow each other in `train` and `test`; each kind is heard apart."""

TEST_SHARE = 8
"""One caption in so many is kept for `test`."""

TRIES = 1000
"""Scenes that a row of `distinct` looks through for a caption that is not taken."""

REVISION = 1
"""To be raised whenever equal arguments yield other sounds or captions."""


@dataclass(frozen=True)
class Scene(LazySound):
    """Events one after the other; the sound is made when it is read."""

    events: tuple[Event, ...]
    seed: int

    def sound(self) -> Sound:
        rng = np.random.default_rng(self.seed)
        pieces = [_silence(rng)]
        for event in self.events:
            wave = faded(MAKERS[event.kind](event, rng))
            level = rng.uniform(0.15, 0.5) / np.abs(wave).max()
            pieces += [wave * level, _silence(rng)]
        scene = np.concatenate(pieces)
        scene = scene + rng.normal(0, 10 ** (rng.uniform(-70, -50) / 20), len(scene))
        return Sound(np.clip(scene, -1, 1)[None].astype(np.float32), RATE)


class Sounds(Source):
    """Rows `audio, caption, events`, from (seed, split, index).

    split: `train`; `test`, whose captions never occur in `train`; `held_out`, where in every sound
    two kinds follow each other that never do in the other two. count: rows. distinct: no caption
    comes twice (for retrieval, where each row is the other rows' wrong answer). audio: made when
    it is read, 16 kHz. events: a dict each, in the caption's order.
    """

    columns = ("audio", "caption", "events")

    def __init__(
        self,
        *,
        split: Literal["train", "test", "held_out"],
        count: PositiveInt = 10_000,
        seed: Count = 0,
        distinct: bool = False,
    ) -> None:
        if count < 1:
            raise ValueError(f"count: found {count}, expected at least 1 row")
        self.split, self.count, self.seed, self.distinct = split, count, seed, distinct

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = self._rng(index)
        passed = self._passed[index] if self.distinct else 0
        events = next(itertools.islice(self._scenes(rng), passed, None))
        return {
            "audio": Scene(events, int(rng.integers(2**31))),
            "caption": caption(events),
            "events": [asdict(event) for event in events],
        }

    def _rng(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(self.split.encode()), index])

    def _scenes(self, rng: np.random.Generator) -> Iterator[tuple[Event, ...]]:
        """Scenes of the split, without end."""
        while True:
            events = scene(rng)
            if split_of(events) == self.split:
                yield events

    @functools.cached_property
    def _passed(self) -> list[int]:
        """How many scenes each row passes over, their captions being taken by rows before it."""
        captions: set[str] = set()
        passed = []
        for index in range(self.count):
            texts = map(caption, itertools.islice(self._scenes(self._rng(index)), TRIES))
            scene_index, text = next(
                ((i, t) for i, t in enumerate(texts) if t not in captions), (-1, "")
            )
            if scene_index < 0:
                raise ValueError(
                    f"count: found {self.count} rows with distinct captions, expected at most "
                    f"{len(captions)} in {self.split}"
                )
            captions.add(text)
            passed.append(scene_index)
        return passed

    def key(self, index: int) -> str:
        kind = "/distinct" if self.distinct else ""
        return f"sounds/{self.split}{kind}/{self.seed}/{index}"

    def fingerprint(self) -> str:
        options = (self.split, self.count, self.seed, self.distinct)
        return hashlib.sha256(f"sounds {REVISION} {options}".encode()).hexdigest()


def caption(events: tuple[Event, ...]) -> str:
    return ", then ".join(event.phrase for event in events)


def split_of(events: tuple[Event, ...]) -> str:
    """Return the one split that a scene belongs to: by its neighbours, else by a hash of its
    caption."""
    kinds = [event.kind for event in events]
    if any(pair in HELD_OUT for pair in itertools.pairwise(kinds)):
        return "held_out"
    return "test" if zlib.crc32(caption(events).encode()) % TEST_SHARE == 0 else "train"


def scene(rng: np.random.Generator) -> tuple[Event, ...]:
    """One to three events; neighbours are of different kinds, or they would be one event."""
    count = int(np.searchsorted(COUNTS, rng.random(), "right")) + 1
    events: list[Event] = []
    while len(events) < count:
        kind = KINDS[int(rng.integers(len(KINDS)))]
        if not events or events[-1].kind != kind:
            chosen = _OF_KIND[kind]
            events.append(chosen[int(rng.integers(len(chosen)))])
    return tuple(events)


def _silence(rng: np.random.Generator) -> np.ndarray:
    return np.zeros(round(rng.uniform(*GAP) * RATE))
