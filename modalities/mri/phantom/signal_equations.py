"""What a scanner measures of a tissue: spin echo and inversion recovery.

`S = PD (1 - exp(-TR / T1)) exp(-TE / T2)`, and with an inversion pulse
`S = PD |1 - 2 exp(-TI / T1) + exp(-TR / T1)| exp(-TE / T2)` (Bernstein et al., Handbook of MRI
Pulse Sequences, 2004). Times in ms; the tissues' are rounded values for 1.5 T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

TISSUES = {
    "grey": (1000.0, 95.0, 0.82),
    "white": (680.0, 78.0, 0.70),
    "fluid": (4200.0, 2000.0, 1.00),
    "lesion": (1600.0, 190.0, 0.88),
    "capsule": (260.0, 110.0, 1.00),
}
"""T1, T2 and density of protons against water."""


@dataclass(frozen=True)
class Timing:
    """TR, TE and, with an inversion pulse, TI."""

    tr: float
    te: float
    ti: float | None = None


SEQUENCES = {
    "T1w": Timing(500.0, 12.0),
    "T2w": Timing(4500.0, 100.0),
    "PDw": Timing(2600.0, 18.0),
    "FLAIR": Timing(9000.0, 120.0, 2550.0),
}


def jittered(timing: Timing, rng: np.random.Generator) -> Timing:
    """Each time by up to a tenth; the inversion time, which nulls the fluid, by a fiftieth."""
    tr, te = (value * rng.uniform(0.9, 1.1) for value in (timing.tr, timing.te))
    ti = None if timing.ti is None else timing.ti * rng.uniform(0.98, 1.02)
    return Timing(tr, te, ti)


def signal(tissue: str, timing: Timing) -> float:
    """Return the brightness of a tissue, between 0 and its density."""
    t1, t2, density = TISSUES[tissue]
    if timing.ti is None:
        along = 1 - math.exp(-timing.tr / t1)
    else:
        along = abs(1 - 2 * math.exp(-timing.ti / t1) + math.exp(-timing.tr / t1))
    return density * along * math.exp(-timing.te / t2)
