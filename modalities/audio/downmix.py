"""Several channels -> one, by the places of their loudspeakers.

Weights are those of ITU-R BS.775 as ffmpeg applies them, scaled to a sum of one. Legend: `C`
channels, `N` samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SIDE = 0.5**0.5
WEIGHTS = {"center": 1.0, "mono": 1.0, "lfe": 0.0, "front": SIDE, "surround": 0.5}
"""Of a loudspeaker by its kind; the bass channel holds nothing that the others lack."""

SURROUND = ("front", "front", "center", "lfe", "surround", "surround")
"""Six channels, unless a file declares others: 5.1."""

CANCELLED = 0.01
"""Share of the power of independent channels below which their mixture has cancelled out."""


def weights_of(speakers: Sequence[str], count: int) -> list[float]:
    """Return the weight of each of `count` channels; equal where nothing is known of them."""
    weights = [WEIGHTS[kind] for kind in speakers]
    total = sum(weights)
    if len(weights) != count or not total:
        return [1 / count] * count
    return [weight / total for weight in weights]


def mix(samples: Tensor, speakers: Sequence[str] = ()) -> tuple[Tensor, bool]:
    """`[C, N]` -> the mixture `[N]`, and whether the channels cancel in it (one is the other's
    negative)."""
    if len(samples) == 1:
        return samples[0], False
    weights = torch.tensor(weights_of(speakers, len(samples)))
    mixture = weights @ samples
    power = float((weights.square() * samples.square().mean(1)).sum())
    return mixture, power > 0 and float(mixture.square().mean()) < CANCELLED * power
