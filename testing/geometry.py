"""Whether tokens lie where an encoder places them, read nothing behind it if they are causal, and
hidden layers have the numbers of its blocks.

A contract here is an `EncoderContract`, built and with its samples.

Legend: `B` batch, `T` tokens, `D` width, `n` axes of the grid.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..modalities.base import Features, Sample
from .common import checking, close, expect, gap, open_zero_branches

SHARES = (0.2, 0.5, 0.8)
"""Where bursts are put in time."""
SPOTS = ((0.2, 0.5, 0.8), (0.8, 0.2, 0.5), (0.5, 0.8, 0.2), (0.8, 0.5, 0.2), (0.2, 0.8, 0.5))
"""Where spots are put in space: most of them move if axes are exchanged, or one is turned round."""
EXTENT = 1.5
"""Tokens by which the one that changes most may lie from a spot."""
RATE = 16000
KEPT = 0.6
"""The share of a signal that stays when its end is changed."""


def check_layer_numbers(contract: Any) -> None:
    """Check that changing a block changes the hidden layers from its own on, and none before.

    Either may begin with what makes the tokens: one block more than layers, or one layer.
    """
    encoder = contract.encoder
    blocks = len(encoder.blocks())
    if not blocks:
        return
    depth = next((n for n in (blocks + 1, blocks, blocks - 1) if _has(contract, n - 1)), 0)
    layers = tuple(range(depth))
    original = contract.encode(contract.samples, hidden_states=layers).hidden_states
    try:
        for block in sorted({0, blocks // 2, blocks - 1}):
            contract.encoder = copy.deepcopy(encoder)
            _disturb(contract.encoder.blocks()[block])
            changed = contract.encode(contract.samples, hidden_states=layers).hidden_states
            pairs = zip(original, changed, strict=True)
            first = [i for i, (a, b) in enumerate(pairs) if not torch.equal(a.tokens, b.tokens)][:1]
            expected = [max(block - (blocks - depth), 0)]
            expect(first == expected, f"block {block} changes layers from {first}, not {expected}")
    finally:
        contract.encoder = encoder


def place_checks(contract: Any) -> dict[str, Callable[[], None]]:
    """Return the checks of what an encoder may support that concerns places, by name."""
    checks = {"segments": check_segments, "causal": check_causal, "aligned": check_aligned}
    return {name: partial(check, contract) for name, check in checks.items()}


def check_segments(contract: Any) -> None:
    """Check that the values in the tokens of a channel are the end of its prepared ones."""
    features, size = contract.features, contract.features.dim // 2 - 1
    tokens = features.tokens[..., :size].unflatten(1, features.grid or ())  # [B, C, T, S]
    for sample, row in zip(contract.samples, tokens.flatten(2), strict=True):
        values = sample["values"]
        steps = values.shape[1] // size * size
        equal = torch.equal(row[:, :steps], values[:, values.shape[1] - steps :])
        expect(equal, "segments are not the values of the channels, up to the last")


def _has(contract: Any, layer: int) -> bool:
    try:
        contract.encode(contract.samples[:1], hidden_states=(layer,))
    except ValueError:
        return False
    return True


def _disturb(block: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def check_places(contract: Any, modality: str) -> None:
    """Move one spot (a bright square, cube, or a burst of sound): the token that it changes most,
    beyond what spots elsewhere change it, has to lie at it. Encoders of other signals, and tokens
    without a place, are passed over."""
    features = contract.features
    if features.grid is None or features.spacing is None or features.origin is None:
        return
    with checking(contract.name, "places of tokens"), torch.no_grad():
        encoder = contract.encoder
        contract.encoder = copy.deepcopy(encoder)
        open_zero_branches(contract.encoder)
        try:
            probes = (PROBES[name] for name in (modality, *contract.samples[0]) if name in PROBES)
            if (probe := next(probes, None)) is not None:
                probe(contract)
        finally:
            contract.encoder = encoder


def _check_spots(contract: Any, key: str, axes: int) -> None:
    """Spots in a prepared picture `[C, H, W]` or volume `[C, X, Y, Z]`, whose places are counted in
    its pixels or voxels."""
    generator = torch.Generator().manual_seed(0)
    sample = dict(contract.samples[0])
    if sample[key].ndim != axes + 1:
        return
    sample[key] = torch.randn(sample[key].shape, generator=generator)
    if "inside" in sample:
        sample["inside"] = torch.ones_like(sample["inside"])
    size = sample[key].shape[1:]
    edge = [max(2, n // 10) for n in size]

    def spotted(corner: Sequence[int]) -> Sample:
        values = sample[key].clone()
        region = tuple(slice(c, c + e) for c, e in zip(corner, edge, strict=True))
        values[(slice(None), *region)] += 4.0
        return {**sample, key: values}

    half = 0.5 if key == "volume" else 0.0  # a voxel's centre is 0, a pixel's 0.5
    ends = [n - e for n, e in zip(size, edge, strict=True)]
    corners = [[int(s * n) for s, n in zip(shares, ends, strict=False)] for shares in SPOTS]
    spots = [[c + e / 2 - half for c, e in zip(corner, edge, strict=True)] for corner in corners]
    _compare(contract, sample, [spotted(corner) for corner in corners], spots, edge)


def _check_sound(contract: Any) -> None:
    """Bursts in noise as long as the tokens reach, half a second at least: an encoder may repeat a
    sound to its window, and with it the burst. Places are seconds along the first axis."""
    features = contract.features
    seconds = max(0.5, 0.9 * features.grid[0] * features.spacing[0])
    noise = np.random.default_rng(0).normal(0, 0.05, int(seconds * RATE)).astype(np.float32)
    burst = np.random.default_rng(1).normal(0, 0.5, RATE // 20).astype(np.float32)
    prepare: Callable[[Any], Sample] = contract.encoder.processor.prepare

    def sound(start: int | None) -> Sample:
        wave = noise.copy()
        if start is not None:
            wave[start : start + len(burst)] += burst
        return prepare(contract.read_cell({"array": wave, "sampling_rate": RATE}))

    starts = [int(share * (len(noise) - len(burst))) for share in SHARES]
    spots = [[(start + len(burst) / 2) / RATE] for start in starts]
    _compare(contract, sound(None), [sound(s) for s in starts], spots, [len(burst) / RATE])


PROBES: dict[str, Callable[[Any], None]] = {
    "audio": _check_sound,
    "pixel_values": partial(_check_spots, key="pixel_values", axes=2),
    "volume": partial(_check_spots, key="volume", axes=3),
}
"""Modality, or else name of a value of its samples -> the check of its places."""


def _compare(
    contract: Any,
    original: Sample,
    changed: Sequence[Sample],
    spots: Sequence[Sequence[float]],
    edge: Sequence[float],
) -> None:
    features = contract.encode([original])
    changes = torch.stack([_changes(features, contract.encode([sample])) for sample in changed])
    others = (changes.sum(0) - changes) / (len(changes) - 1)  # tokens that any spot changes much
    offsets = [_place_of(features, change) for change in changes - others]
    grid, spacing = features.grid or (), features.spacing or ()
    for axis in range(len(spots[0])):
        if grid[axis] == 1:
            continue
        distances = [abs(float(o[axis]) - s[axis]) for o, s in zip(offsets, spots, strict=True)]
        limit = EXTENT * spacing[axis] + edge[axis]
        close = sorted(distances)[len(distances) // 2]
        expect(
            close <= limit,
            f"along axis {axis} of grid {grid} the token that changes most lies {close:.3g} from a "
            f"spot at the median, expected at most {limit:.3g}; spots {[s[axis] for s in spots]}, "
            f"tokens {[round(float(o[axis]), 3) for o in offsets]}",
        )


def _changes(before: Features, after: Features) -> Tensor:
    """Return `[T]` by how much each token changes."""
    return (after.tokens - before.tokens)[0].norm(dim=-1)


def _place_of(features: Features, change: Tensor) -> Tensor:
    """Return `[n]` the centre of the token whose change `[T]` is the largest."""
    index = torch.stack(torch.unravel_index(change.argmax(), features.grid or ())).float()
    spacing, origin = torch.tensor(features.spacing), torch.tensor(features.origin)
    return origin + spacing * index


def check_causal(contract: Any) -> None:
    """Check an encoder that supports `causal`: with another end of the signal, all tokens whose
    extent ends before it are as they were, and a later one is not."""
    for raw in contract.raws:
        raw = _clip(contract, raw)
        changed, first = change_end(raw)
        samples = [contract.encoder.processor.prepare(value) for value in (raw, changed)]
        options = {"hidden_states": (0,)} if "hidden_states" in contract.encoder.supports else {}
        before, after = (contract.encode([sample], **options) for sample in samples)
        if isinstance(raw, str):
            texts = [sample["ids"] for sample in samples]
            shared = min(map(len, texts))
            first = int((texts[0][:shared] == texts[1][:shared]).long().cumprod(0).sum())
        pairs = [(before, after), *zip(before.hidden_states, after.hidden_states, strict=True)]
        for a, b in pairs:
            _same_before(a, b, first, raw)


def check_aligned(contract: Any) -> None:
    """Check an encoder that supports `aligned`: the first half of a signal has half the tokens."""
    for raw in contract.raws:
        values, replaced = _in_time(raw)
        samples = [
            contract.encoder.processor.prepare(r)
            for r in (raw, replaced(values[: len(values) // 2]))
        ]
        whole, half = (int(contract.encode([sample]).mask.sum()) for sample in samples)
        expect(abs(whole - 2 * half) <= 4, f"{half} tokens of a half, {whole} of the whole")


def change_end(raw: Any) -> tuple[Any, int]:
    """Return a raw value with another end, and its first step that differs; a text goes on."""
    if isinstance(raw, str):
        return f"{raw} and more of it", 0
    values, replaced = _in_time(raw)
    changed, rng = np.array(values), np.random.default_rng(0)
    first = max(1, int(KEPT * len(values)))
    end = changed[first:]
    if np.issubdtype(values.dtype, np.integer):
        end[...] = 255 - end
    else:
        end[...] = 3 * np.nanstd(values) * rng.normal(size=end.shape) + 2 * np.nanmax(values)
    return replaced(changed), first


def _in_time(raw: Any) -> tuple[np.ndarray, Callable[[np.ndarray], Any]]:
    """Return a raw value's array with time first, and what puts another in its place."""
    names = [n for n in ("samples", "values", "frames") if isinstance(vars(raw).get(n), np.ndarray)]
    expect(names, f"a {type(raw).__name__} has no end that this check can change")
    axis = -1 if names[0] == "samples" or hasattr(raw, "channels") else 0

    def replaced(values: np.ndarray) -> Any:
        return dataclasses.replace(raw, **{names[0]: np.moveaxis(values, 0, axis)})

    return np.moveaxis(getattr(raw, names[0]), axis, 0), replaced


def _clip(contract: Any, raw: Any) -> Any:
    """Return a clip of darker and darker copies in place of a picture, which has no end."""
    if not hasattr(raw, "resize"):
        return raw
    frame = np.array(raw.convert("RGB"))
    return contract.read_cell({"frames": np.stack([frame // (i + 1) for i in range(5)]), "fps": 25})


def _same_before(before: Features, after: Features, first: int, raw: Any) -> None:
    count = min(before.mask.shape[1], after.mask.shape[1])
    steps = torch.arange(count, dtype=torch.float64)
    if before.spacing is None or before.origin is None:
        total = before.mask.shape[1] if isinstance(raw, str) else len(_in_time(raw)[0])
        ends, moment = (steps + 1) * total / before.mask.shape[1], float(first)
    else:
        expect(len(before.spacing) == 1, f"its tokens lie on {before.grid}, not along time alone")
        ends = before.origin[0] + (steps + 0.5) * before.spacing[0]
        moment = first / float(getattr(raw, "rate", None) or getattr(raw, "fps", None) or 1)
    stays = ends <= moment + 1e-6
    expect(stays.any(), f"no token ends before {moment:g}; give longer examples")
    same, other = before.tokens[0, :count], after.tokens[0, :count]
    difference = gap(same[stays], other[stays])
    expect(
        close(same[stays], other[stays]),
        f"what follows {moment:g} changes tokens that end before: {difference}",
    )
    longer = before.mask.shape[1] != after.mask.shape[1]
    expect(longer or not close(same, other), "another end of the signal changes nothing")
