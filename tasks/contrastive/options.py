"""Checks of the options of a contrastive task; each raises ValueError with one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..common import MAX_LOGIT_SCALE
from .candidates import Comparison

TEMPERATURES = {"infonce": 0.07, "soft": 0.07, "siglip": 0.1, "hinge": 1.0}
"""Initial temperatures, as in CLIP and SigLIP; `hinge` compares plain cosines."""


def check_numbers(temperature: float | None, gradcache_chunk_size: int | None) -> None:
    if temperature is not None and temperature < 1 / MAX_LOGIT_SCALE:
        raise ValueError(
            f"temperature: found {temperature}, expected {1 / MAX_LOGIT_SCALE} or more"
        )
    if gradcache_chunk_size is not None and gradcache_chunk_size < 1:
        raise ValueError(f"gradcache_chunk_size: found {gradcache_chunk_size}, expected at least 1")


def check_negatives(
    compare: Comparison, temperature: float | None, hard_negatives: Mapping[str, object]
) -> None:
    """Refuse options without effect on the loss, and a loss without negatives."""
    loss, hinge_margin, hardness = compare.loss, compare.hinge_margin, compare.hardness
    limit = compare.false_negative_margin
    if not compare.in_batch and not hard_negatives:
        raise ValueError(
            "in_batch_negatives: found false without hard_negatives; nothing would be compared"
        )
    if (loss == "hinge") != (hinge_margin is not None):
        raise ValueError(
            f"hinge_margin: found {'none' if hinge_margin is None else hinge_margin} with loss: "
            f"{loss}; the two go together, as in loss: hinge, hinge_margin: 0.2"
        )
    if hinge_margin is not None and hinge_margin <= 0:
        raise ValueError(f"hinge_margin: found {hinge_margin}, expected more than 0")
    if loss == "hinge" and temperature is not None:
        raise ValueError("temperature: loss: hinge compares plain cosines; leave it out")
    if limit is not None and not -2 <= limit <= 2:
        raise ValueError(
            f"false_negative_margin: found {limit}, expected a difference of cosines, -2 to 2"
        )
    if hardness < 0:
        raise ValueError(f"hardness: found {hardness}, expected 0 or more")
    if hardness and loss == "hinge":
        raise ValueError("hardness: weighs logits, which loss: hinge has not; leave it out")


def check_frozen(
    loss: str,
    streams: Sequence[str],
    soft_target_streams: Mapping[str, str],
    teachers: Sequence[Mapping[str, str]],
) -> None:
    if (loss == "soft") != bool(soft_target_streams):
        raise ValueError(
            f"soft_target_streams: found {soft_target_streams or 'none'} with "
            f"loss: {loss}; the two go together, as in loss: soft, "
            "soft_target_streams: {image: look}"
        )
    for name, target_stream in soft_target_streams.items():
        if name not in streams:
            raise ValueError(f"soft_target_streams: {name!r} is not one of {', '.join(streams)}")
        if target_stream in streams:
            raise ValueError(
                f"soft_target_streams: {name}: {target_stream!r} is itself learned; name a "
                "frozen stream"
            )
    for index, teacher in enumerate(teachers):
        if set(teacher.values()) & set(streams):
            raise ValueError(f"teachers: number {index + 1} names a stream that is learned")
        if set(teacher) != set(streams):
            raise ValueError(
                f"teachers: number {index + 1} stands for {', '.join(teacher) or 'none'}, "
                f"expected a stream for each of {', '.join(streams)}"
            )


def check_hard_negatives(
    hard_negatives: Mapping[str, str | Sequence[str]], streams: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return the streams of hard negatives of each stream. Raise ValueError if one is not among
    the task's, or is named twice."""
    negatives: dict[str, tuple[str, ...]] = {}
    seen = set(streams)
    for name, value in hard_negatives.items():
        if name not in streams:
            raise ValueError(f"hard_negatives: {name!r} is not one of {', '.join(streams)}")
        names = (value,) if isinstance(value, str) else tuple(value)
        if not names:
            raise ValueError(f"hard_negatives: {name}: found no stream, expected one or several")
        for stream in names:
            if stream in seen:
                raise ValueError(
                    f"hard_negatives: {name}: {stream!r} is used twice; name a stream of its own, "
                    f"as in inputs: {{negative: {{share: {name}}}}}"
                )
            seen.add(stream)
        negatives[name] = names
    return negatives


def check_widths(
    matryoshka: Sequence[int], weights: Sequence[float] | None, dim: int
) -> dict[int, float]:
    """Return the weight of each prefix, the widest first. Raise ValueError."""
    if weights is not None and len(weights) != len(matryoshka):
        raise ValueError(
            f"matryoshka_weights: found {len(weights)}, expected one for each of the "
            f"{len(matryoshka)} widths of matryoshka"
        )
    for width in matryoshka:
        if not 0 < width < dim:
            raise ValueError(f"matryoshka: found {width}, expected widths of 1 to {dim - 1}")
    if len(set(matryoshka)) < len(matryoshka):
        raise ValueError(f"matryoshka: found {list(matryoshka)}, expected different widths")
    pairs = zip(matryoshka, weights or [1.0] * len(matryoshka), strict=True)
    return dict(sorted(pairs, reverse=True))
