"""The sentences of the talker: two grammars over words that no accent of it confuses.

`commands`: strings of digits and short orders, 61 words. `sentences`: 8 to 25 words of a
vocabulary of several hundred, in which certain pairs of neighbours (an adjective and its noun, a
noun and its verb) are kept for testing, although each of their words is trained.

A sentence belongs to one split alone, by a hash of its words: nothing is listed.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DEVICES = ("light", "lamp", "heater", "fan", "radio", "camera", "robot")
OPENABLE = ("door", "window", "box")
COLOURS = ("red", "green", "blue", "yellow", "white", "black")
ROOMS = ("kitchen", "bedroom", "garage", "garden", "office", "bathroom")

ADJECTIVES = _split(
    "small tired friendly quiet young clever famous honest lonely nervous polite proud rich shy "
    "silly strong busy careful cheerful curious gentle happy jealous lazy lucky modern noisy "
    "patient stubborn wealthy"
)
PEOPLE = _split(
    "doctor teacher farmer pilot singer baker painter lawyer nurse soldier dancer captain king "
    "driver student neighbour uncle brother sister mother father scientist gardener butcher "
    "detective engineer waiter tailor merchant poet judge visitor tourist giant wizard"
)
QUALITIES = _split(
    "heavy broken golden silver wooden purple orange yellow expensive cheap dirty empty enormous "
    "fragile frozen hidden narrow rusty shiny square strange tiny useful ancient beautiful bright "
    "cold dusty electric foreign plastic precious secret sharp simple sticky"
)
THINGS = _split(
    "bottle basket blanket bicycle camera candle carpet clock computer cup diamond drum "
    "engine envelope feather fence hammer helmet jacket kettle ladder lamp letter magazine map "
    "mirror necklace needle newspaper package pencil piano picture pillow guitar ribbon rope "
    "sandwich scissors shovel spoon suitcase sweater table telephone ticket towel trumpet "
    "umbrella violin wallet whistle window book bucket button"
)
DEEDS = _split(
    "carried cleaned borrowed collected painted repaired dropped examined found finished "
    "followed forgot gathered ignored invented kept lifted moved noticed opened ordered packed "
    "photographed pulled pushed received remembered removed stole touched washed wanted watched "
    "admired described destroyed delivered discovered measured"
)
MOVES = _split(
    "walked waited slept travelled danced whistled laughed worked stopped stumbled hurried "
    "listened rested shouted vanished wandered arrived argued"
)
PREPOSITIONS = _split("behind beside under near above across inside outside along beyond")
PLACES = _split(
    "river mountain garden kitchen library market station hospital village forest bridge castle "
    "church corner desert factory harbour hotel island museum office palace school theatre tower "
    "valley airport bakery beach cottage field lake ocean prison restaurant stadium street "
    "temple tunnel university"
)
TIMES = (
    *(f"on {day}" for day in _split("monday tuesday wednesday thursday friday saturday sunday")),
    *(f"in {month}" for month in _split("january february april june july august october")),
    *("yesterday", "at midnight", "last summer", "before breakfast", "after dinner", "last winter"),
    *("during the storm", "every evening", "at noon", "once again", "many years later"),
)
MANNERS = _split(
    "slowly quickly quietly carefully suddenly happily angrily secretly proudly gently "
    "nervously bravely eagerly finally loudly"
)
NUMBERS = _split("three five six seven nine ten eleven twelve twenty thirty fifty hundred")
JOINTS = ("and then", "because", "while", "but", "although", "until")

SHORTEST, LONGEST = 8, 25
"""Words of a sentence."""

COMMAND_SHARE, PAIR_SHARE = 8, 10
"""One command in so many is kept for testing; one pair of neighbours in so many."""

Pick = Callable[[Sequence[str]], str]


@dataclass(frozen=True)
class Grammar:
    """make: a sentence from a generator. held_out: True for one that is not in training."""

    make: Callable[[np.random.Generator], str]
    held_out: Callable[[str], bool]
    vocabulary: frozenset[str]

    def draw(self, rng: np.random.Generator, held_out: bool) -> str:
        """Return a sentence of the requested kind."""
        return next(text for text in self._endless(rng) if self.held_out(text) == held_out)

    def _endless(self, rng: np.random.Generator) -> Iterator[str]:
        while True:
            yield self.make(rng)


def _picker(rng: np.random.Generator) -> Pick:
    return lambda words: words[int(rng.integers(len(words)))]


def command(rng: np.random.Generator) -> str:
    """Three to seven digits, or one order, or two."""
    pick = _picker(rng)
    if rng.random() < 0.3:
        return " ".join(pick(DIGITS) for _ in range(int(rng.integers(3, 8))))
    order = _order(rng, pick)
    if rng.random() < 0.3:
        order = f"{order} and then {_order(rng, pick)}"
    return f"please {order}" if rng.random() < 0.2 else order


def _order(rng: np.random.Generator, pick: Pick) -> str:
    colour = f"{pick(COLOURS)} " if rng.random() < 0.6 else ""
    room = f" in the {pick(ROOMS)}" if rng.random() < 0.4 else ""
    again = f" {pick(('now', 'again'))}" if rng.random() < 0.2 else ""
    orders = (
        lambda: (
            f"{pick(('turn', 'switch'))} {pick(('on', 'off'))} the {colour}{pick(DEVICES)}"
            f"{room}{again}"
        ),
        lambda: f"{pick(('open', 'close'))} the {colour}{pick(OPENABLE)}{room}{again}",
        lambda: (
            f"{pick(('play', 'start', 'stop'))} the {pick(('music', 'radio', 'timer'))}"
            f"{room}{again}"
        ),
        lambda: (
            f"{pick(('move', 'lift', 'find'))} the {colour}{pick(('box', 'robot', 'camera'))} "
            f"{pick(('left', 'right', 'up', 'down'))} {pick(('slowly', 'quickly'))}"
        ),
        lambda: f"turn the volume {pick(('up', 'down'))}{room}{again}",
        lambda: f"switch the radio channel {pick(DIGITS)} {pick(DIGITS)}{again}",
    )
    return orders[int(rng.integers(len(orders)))]()


def _command_held_out(text: str) -> bool:
    return zlib.crc32(text.encode()) % COMMAND_SHARE == 0


def sentence(rng: np.random.Generator) -> str:
    """Clauses with times and manners until there are enough words."""
    pick = _picker(rng)
    while True:
        length = int(rng.integers(SHORTEST, LONGEST - 3))
        words = _clause(rng, pick)
        while len(words) < length:
            words = [*words, *pick(JOINTS).split(), *_clause(rng, pick)]
        if rng.random() < 0.4:
            time = pick(TIMES).split()
            words = [*time, *words] if rng.random() < 0.5 else [*words, *time]
        if SHORTEST <= len(words) <= LONGEST:
            return " ".join(words)


def _clause(rng: np.random.Generator, pick: Pick) -> list[str]:
    """Somebody does something: `the tired farmer quickly carried the rusty kettle`."""
    subject = ["the", *([pick(ADJECTIVES)] if rng.random() < 0.6 else []), pick(PEOPLE)]
    manner = [pick(MANNERS)] if rng.random() < 0.3 else []
    if rng.random() < 0.3:
        return [*subject, *manner, pick(MOVES), pick(PREPOSITIONS), "the", pick(PLACES)]
    plural = rng.random() < 0.15
    quality = [pick(QUALITIES)] if rng.random() < 0.6 else []
    object_ = [pick(NUMBERS), *quality, f"{pick(COUNTED)}s"] if plural else [
        "the", *quality, pick(THINGS)
    ]  # fmt: skip
    where = [pick(PREPOSITIONS), "the", pick(PLACES)] if rng.random() < 0.3 else []
    return [*subject, *manner, pick(DEEDS), *object_, *where]


COUNTED = ("bottle", "basket", "candle", "diamond", "ladder", "letter", "pencil", "ticket", "book")
"""Things that also come in numbers."""

_FIRST = frozenset(ADJECTIVES + QUALITIES + PEOPLE)
_SECOND = frozenset(PEOPLE + THINGS + DEEDS + MOVES + tuple(f"{thing}s" for thing in COUNTED))


def held_pairs(text: str) -> list[tuple[str, str]]:
    """Return the pairs of neighbours in a sentence that are kept for testing."""
    return [
        (first, second)
        for first, second in itertools.pairwise(text.split())
        if first in _FIRST
        and second in _SECOND
        and zlib.crc32(f"{first} {second}".encode()) % PAIR_SHARE == 0
    ]


def _words(*groups: Sequence[str]) -> frozenset[str]:
    return frozenset(word for group in groups for text in group for word in text.split())


GRAMMARS = {
    "commands": Grammar(
        command,
        _command_held_out,
        _words(
            DIGITS, DEVICES, OPENABLE, COLOURS, ROOMS,
            ["turn switch open close play start stop move lift find on off up down left right"],
            ["please the in and then now again slowly quickly music timer volume channel"],
        ),
    ),
    "sentences": Grammar(
        sentence,
        lambda text: bool(held_pairs(text)),
        _words(
            ADJECTIVES, PEOPLE, QUALITIES, THINGS, DEEDS, MOVES, PREPOSITIONS, PLACES, TIMES,
            MANNERS, NUMBERS, JOINTS, ["the"], [f"{thing}s" for thing in COUNTED],
        ),
    ),
}  # fmt: skip
