"""Who the talker can be: espeak-ng's accents of English and its voice variants."""

from __future__ import annotations

import numpy as np

from .espeak import Voice

ACCENTS = (
    "en-us",
    "en-gb-x-rp",
    "en-gb-scotland",
    "en-us-nyc",
    "en-029",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
)
"""American, Received Pronunciation, Scottish, New York, Caribbean, Lancaster, West Midlands."""

_NAMES = (
    "Alex Alicia Andrea Andy Annie AnxiousAndy Demonic Denis Diogo Gene Gene2 Henrique Hugo Jacky "
    "Lee Marco Mario Michael Mike Nguyen RicishayMax RicishayMax2 RicishayMax3 Storm "
    "Tweaky UniRobot adam anika anikaRobot announcer antonio aunty belinda benjamin boris "
    "croak david ed edward edward2 f1 f2 f3 f4 f5 fast grandma grandpa gustave iven iven2 iven3 "
    "iven4 john kaukovalta klatt klatt2 klatt3 klatt4 klatt5 klatt6 linda m1 m2 m3 m4 m5 m6 m7 m8 "
    "marcelo max michel miguel norbert pablo paul pedro quincy rob robert robosoft robosoft2 "
    "robosoft3 robosoft4 robosoft5 robosoft6 robosoft7 robosoft8 sandro shelby steph steph2 steph3 "
    "travis victor whisper whisperf zac"
)
VARIANTS = (*_NAMES.split(), "Mr serious")
"""The variants that espeak-ng 1.51 and 1.52 both have, but `caleb`, whose noise is the C library's
own and therefore never the same."""

HELD_ACCENTS = ("en-gb-scotland", "en-gb-x-gbcwmd")
HELD_VARIANTS = VARIANTS[3::6]
"""What training never hears."""


def speaker(rng: np.random.Generator, held_variant: bool, held_accent: bool) -> Voice:
    """Return a voice of the requested kind, at its own rate and pitch."""
    variants = [name for name in VARIANTS if (name in HELD_VARIANTS) == held_variant]
    accents = [name for name in ACCENTS if (name in HELD_ACCENTS) == held_accent]
    return Voice(
        accent=accents[int(rng.integers(len(accents)))],
        variant=variants[int(rng.integers(len(variants)))],
        rate=int(rng.integers(140, 211)),
        pitch=int(rng.integers(30, 71)),
        range=int(rng.integers(30, 71)),
    )
