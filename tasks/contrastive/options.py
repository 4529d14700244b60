"""Checks of the options of a contrastive task; each raises ValueError with one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..common import MAX_LOGIT_SCALE
from ..uses import StreamUse
from .candidates import Comparison

TEMPERATURES = {"infonce": 0.07, "soft": 0.07, "siglip": 0.1, "cosent": 0.05}
"""Initial temperatures, as in CLIP and SigLIP; other losses compare plain similarities, and so do
those of similarities that are no cosines."""

PLAIN = ("hinge", "margin_mse")


@dataclass(frozen=True, kw_only=True)
class ContrastiveOptions:
    """The options that are checked together; see `contrastive.Contrastive`."""

    streams: Sequence[str]
    dim: int | None
    compare: Comparison
    temperature: float | None
    scores: str | None
    flops: Mapping[str, float]
    queue_size: int | None
    hard_negatives: Mapping[str, str | list[str]]
    guide: Mapping[str, str]
    soft_target_streams: Mapping[str, str]
    teachers: Sequence[Mapping[str, str]]
    gradcache_chunk_size: int | None
    main_metric: str | None

    @property
    def embedded(self) -> tuple[str, ...]:
        """The streams of the space. Raise ValueError if there are not two different ones."""
        names = tuple(dict.fromkeys(self.streams))
        if len(names) < 2 or len(names) < len(self.streams):
            raise ValueError(
                f"streams: found {', '.join(self.streams)}; expected two different ones"
            )
        return names

    @property
    def plain(self) -> bool:
        """Whether the loss has no temperature that is learned."""
        return self.compare.loss in ("hinge", "cosent", "margin_mse")

    def headline(self) -> str:
        """Return the main metric. Raise ValueError if one is given that is not computed."""
        if self.compare.loss != "cosent":
            return self.main_metric or "recall@1"
        if self.main_metric is not None:
            raise ValueError(
                f"main_metric: found {self.main_metric}; cosent is evaluated by spearman alone, "
                "leave it out"
            )
        return "spearman"

    def temperature_default(self) -> float:
        if self.compare.similarity != "cosine":
            return 1.0
        return TEMPERATURES.get(self.compare.loss, 1.0)

    def prefixes(
        self, matryoshka: Sequence[int], weights: Sequence[float] | None
    ) -> dict[int, float]:
        """Return the weight of each prefix, the widest first. Raise ValueError."""
        if matryoshka and self.compare.similarity == "dot":
            raise ValueError(
                "matryoshka: the coordinates of similarity: dot are words; use flops in its place"
            )
        return check_widths(matryoshka, weights, self.dim)

    def check(self) -> dict[str, tuple[str, ...]]:
        """Return the streams of hard negatives of each stream. Raise ValueError for options
        without effect or that contradict each other."""
        negatives = check_hard_negatives(self.hard_negatives, self.embedded)
        check_numbers(self.temperature, self.gradcache_chunk_size)
        check_frozen(self.compare.loss, self.embedded, self.soft_target_streams, self.teachers)
        check_negatives(self.compare, self.temperature, self.hard_negatives)
        check_scores(self.compare, self.scores, negatives, self.embedded, bool(self.guide))
        self._check_guide(negatives)
        for name in self.flops:
            if name not in self.embedded:
                raise ValueError(f"flops: {name!r} is not one of {', '.join(self.embedded)}")
        if self.flops and self.compare.similarity != "dot":
            raise ValueError(
                "flops: makes vectors sparse, whose similarity is the dot product; set similarity: "
                "dot"
            )
        if self.queue_size is not None:
            self._check_queue()
        return negatives

    def _check_queue(self) -> None:
        if self.compare.loss in ("cosent", "margin_mse"):
            raise ValueError(f"queue_size: loss: {self.compare.loss} compares no other rows")
        if self.compare.similarity == "maxsim":
            raise ValueError("queue_size: holds one vector a row, and maxsim has one a token")
        if not self.compare.in_batch:
            raise ValueError(
                "queue_size: holds rows of other batches, and in_batch_negatives: false compares "
                "none"
            )

    def _check_guide(self, negatives: Mapping[str, Sequence[str]]) -> None:
        guided = {*self.embedded, *(s for streams in negatives.values() for s in streams)}
        if self.guide and set(self.guide) != guided:
            raise ValueError(
                f"guide: stands for {', '.join(self.guide)}; expected a frozen stream for each of "
                f"{', '.join(sorted(guided))}"
            )
        if wrong := set(self.guide.values()) & guided:
            raise ValueError(f"guide: {min(wrong)!r} is learned; name a frozen stream")
        if self.compare.guide_margin and not self.guide:
            raise ValueError("guide_margin: found without guide; add the streams of guide")

    def teacher_streams(self) -> tuple[str, ...]:
        """Return the frozen streams whose vectors are of rows."""
        frozen = [
            *self.soft_target_streams.values(),
            *(self.guide[name] for name in self.embedded if name in self.guide),
            *(teacher[name] for teacher in self.teachers for name in self.embedded),
        ]
        return tuple(dict.fromkeys(frozen))

    def stream_uses(self) -> dict[str, StreamUse]:
        """Return the task's streams. Raise ValueError if a hard negative is a teacher."""
        teachers, first = self.teacher_streams(), self.embedded[0]
        uses = {name: StreamUse(role="teacher", training_only=True) for name in teachers}
        width = first if self.dim is None else self.dim
        ema: Literal["stream"] | bool = "stream" if self.queue_size is not None else False
        uses[first] = StreamUse(width=self.dim, ema=ema)
        uses |= {name: StreamUse(width=width, ema=ema) for name in self.embedded[1:]}
        for name, value in self.hard_negatives.items():
            many = isinstance(value, str)
            for stream in [value] if isinstance(value, str) else value:
                if stream in teachers:
                    raise ValueError(
                        f"hard_negatives: {name}: {stream!r} is a teacher; name another"
                    )
                uses[stream] = StreamUse(width=width, many=many, training_only=True)
                if stream in self.guide:
                    uses[self.guide[stream]] = StreamUse(
                        role="teacher", many=many, training_only=True
                    )
        return uses


def check_scores(
    compare: Comparison,
    scores: str | None,
    hard_negatives: Mapping[str, Sequence[str]],
    streams: Sequence[str],
    guided: bool = False,
) -> None:
    """Raise ValueError if a loss of scores lacks its column or its hard negatives."""
    if (compare.loss in ("cosent", "margin_mse")) != (scores is not None):
        raise ValueError(
            f"scores: found {scores or 'none'} with loss: {compare.loss}; a column of scores goes "
            "with loss: cosent or margin_mse"
        )
    if scores is not None:
        unused = {
            "in_batch_negatives": not compare.in_batch,
            "hardness": compare.hardness,
            "false_negative_margin": compare.false_negative_margin is not None,
            "guide": guided,
        }
        for name in (name for name, present in unused.items() if present):
            raise ValueError(f"{name}: loss: {compare.loss} compares no other rows; leave it out")
    if compare.loss == "cosent" and hard_negatives:
        raise ValueError("hard_negatives: loss: cosent compares pairs of its rows alone")
    if compare.loss == "margin_mse" and (len(streams) != 2 or [*hard_negatives] != [streams[1]]):
        raise ValueError(
            "hard_negatives: loss: margin_mse learns the margins of two streams' hard negatives, "
            f"as in hard_negatives: {{{streams[-1]}: wrong}}"
        )


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
    if loss in PLAIN and temperature is not None:
        raise ValueError(f"temperature: loss: {loss} compares plain cosines; leave it out")
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
    matryoshka: Sequence[int], weights: Sequence[float] | None, dim: int | None
) -> dict[int, float]:
    """Return the weight of each prefix, the widest first. Raise ValueError."""
    if weights is not None and len(weights) != len(matryoshka):
        raise ValueError(
            f"matryoshka_weights: found {len(weights)}, expected one for each of the "
            f"{len(matryoshka)} widths of matryoshka"
        )
    for width in matryoshka:
        if dim is None:
            raise ValueError("matryoshka: its widths are prefixes of dim, which is null; set dim")
        if not 0 < width < dim:
            raise ValueError(f"matryoshka: found {width}, expected widths of 1 to {dim - 1}")
    if len(set(matryoshka)) < len(matryoshka):
        raise ValueError(f"matryoshka: found {list(matryoshka)}, expected different widths")
    pairs = zip(matryoshka, weights or [1.0] * len(matryoshka), strict=True)
    return dict(sorted(pairs, reverse=True))
