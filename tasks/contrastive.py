"""Contrastive learning: any two or more streams brought into one space, for retrieval.

Rows of a batch belong together, all others apart (`_similarity.py` has the losses and their
sources). Embeddings are gathered from all processes, so that every process sees all of them.

Legend: `B` rows of this process, `N` rows of all processes, `D` width of the space.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..backbones.base import Backbone
from ._gather import gathered
from ._similarity import cross_entropy, even, pairwise_sigmoid, soft, to_teachers, unit
from .base import Batch, Embed, Encode, Loss, Row, Task
from .retrieval_metrics import RetrievalMetrics
from .zero_shot import ZeroShot

LARGEST = 100.0
"""CLIP's limit of the scale, `1 / temperature`."""

TEMPERATURES = {"infonce": 0.07, "soft": 0.07, "siglip": 0.1}
"""Where learning begins, as CLIP and SigLIP have it."""


class Contrastive(Task):
    """streams: what is brought together, two or more; every pair of them counts alike. dim: width
    of the space. loss: `infonce` (CLIP, symmetric), `siglip` (pairwise sigmoid with a bias) or
    `soft` (a stream's rows are drawn to all rows, as much as what was put in is alike).

    group: a column; rows that share its value belong together too (a row with null stands
    alone). alike: with `soft`, `{image: look}`: the frozen stream `look` says how alike the rows
    of `image` are. teachers: `[{image: clip_image, caption: clip_text}]`, frozen streams that
    stand for the task's own; their cosines are approached by smooth L1, `teacher_weight` of it.
    temperature: where it begins; it is learned. chunk: rows that are encoded at a time, their
    activations computed again in the backward; for batches larger than memory.

    match: a column; a second set of metrics asks among rows of the same value alone. zero_shot:
    `{input: image, target: word, templates: ["a {}."], classes: [...]}`, see `ZeroShot`.
    """

    gathers = True

    def __init__(
        self,
        *,
        streams: list[str],
        dim: int = 128,
        loss: Literal["infonce", "siglip", "soft"] = "infonce",
        temperature: float | None = None,
        bias: float = -10.0,
        group: str | None = None,
        alike: dict[str, str] | None = None,
        teachers: list[dict[str, str]] | None = None,
        teacher_weight: float = 1.0,
        chunk: int | None = None,
        match: str | None = None,
        zero_shot: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.embedded = tuple(dict.fromkeys(streams))
        if len(self.embedded) < 2 or len(self.embedded) < len(streams):
            raise ValueError(f"streams: found {', '.join(streams)}; expected two different ones")
        self.dim, self.kind, self.group, self.match = dim, loss, group, match
        self.alike, self.teachers = alike or {}, teachers or []
        self._check(temperature, chunk)
        others = [*self.alike.values(), *(t[s] for t in self.teachers for s in self.embedded)]
        self.streams = tuple(dict.fromkeys((*self.embedded, *others)))
        self.teacher_weight, self.chunk = teacher_weight, chunk
        self.zero_shot = ZeroShot.read(zero_shot, self.embedded) if zero_shot else None
        begin = -math.log(temperature or TEMPERATURES[loss])
        self.log_scale = nn.Parameter(torch.tensor(begin))
        self.bias = nn.Parameter(torch.tensor(bias)) if loss == "siglip" else None

    def _check(self, temperature: float | None, chunk: int | None) -> None:
        if temperature is not None and temperature < 1 / LARGEST:
            raise ValueError(f"temperature: found {temperature}, expected {1 / LARGEST} or more")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk: found {chunk}, expected at least 1")
        if (self.kind == "soft") != bool(self.alike):
            raise ValueError(
                f"alike: loss: {self.kind} with alike {self.alike or 'missing'}; the two go "
                "together, as in loss: soft, alike: {image: look}"
            )
        for name in self.alike:
            if name not in self.embedded:
                raise ValueError(f"alike: {name!r} is none of {', '.join(self.embedded)}")
        for place, teacher in enumerate(self.teachers):
            if set(teacher) != set(self.embedded):
                raise ValueError(
                    f"teachers: number {place + 1} stands for {', '.join(teacher) or 'none'}, "
                    f"expected a stream for each of {', '.join(self.embedded)}"
                )

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(itertools.combinations(self.embedded, 2))

    def width(self, stream: str) -> int | None:
        return self.dim if stream in self.embedded else None

    def columns(self) -> tuple[str, ...]:
        return () if self.group is None else (self.group,)

    def targets(self, row: Row) -> dict[str, Any]:
        """`group`, `match` and `label`, where they are asked for and the row has them."""
        label = None if self.zero_shot is None else self.zero_shot.target
        wanted = {"group": self.group, "match": self.match, "label": label}
        return {k: _plain(row[c]) for k, c in wanted.items() if c is not None and c in row}

    def after_step(self, step: int) -> None:
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(LARGEST))

    def loss(self, batch: Batch, encode: Encode, backbone: Backbone | None) -> Loss:
        """Summed over rows, the mean of all pairs of streams. `correct`: rows whose nearest
        belongs to them, the mean of all directions; `scale`: 1 / temperature."""
        own = {name: self._vectors(batch, encode, name) for name in self.embedded}
        others = [name for name in self.streams if name not in own]
        given = {name: self._vectors(batch, encode, name) for name in others}
        device = self.log_scale.device
        with _exactly(device):
            packed, start = gathered(torch.cat(list(own.values()), 1))
            every = dict(zip(own, packed.split(self.width(self.embedded[0]) or 0, 1), strict=True))
            whole = {name: gathered(rows)[0] for name, rows in given.items()}
            places = torch.arange(start, start + len(batch), device=device)
            positive = self._positive(batch, places, len(packed))
            goals = dict.fromkeys(own, even(positive))
            for name, look in self.alike.items():
                goals[name] = soft(given[look], whole[look], positive)
            total, correct, taught = torch.zeros(3, device=device)
            for a, b in self.pairs:
                value, right = self._pair(own, every, (a, b), positive, goals)
                total, correct = total + value, correct + right
                known = [given[t[a]] @ whole[t[b]].T for t in self.teachers]
                if known:
                    taught = taught + to_teachers(own[a] @ every[b].T, known)
            number, scale = len(self.pairs), self.log_scale.detach().exp() * len(batch)
            parts = {"correct": correct / number, "scale": scale}
            if self.teachers:
                parts["teachers"] = taught.detach() / number
            return Loss((total + self.teacher_weight * taught) / number, len(batch), parts)

    def _pair(
        self,
        own: Mapping[str, Tensor],
        every: Mapping[str, Tensor],
        pair: tuple[str, str],
        positive: Tensor,
        goals: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The loss of a pair of streams, and how many rows find what belongs to them."""
        (a, b), scale = pair, self.log_scale.exp()
        there, back = scale * own[a] @ every[b].T, scale * own[b] @ every[a].T  # [B, N]
        right = (_hits(there, positive) + _hits(back, positive)) / 2
        if self.bias is not None:  # one matrix: the other direction's is its transpose
            return pairwise_sigmoid(there + self.bias, positive), right
        value = cross_entropy(there, goals[a]) + cross_entropy(back, goals[b])
        return value / 2, right

    def _vectors(self, batch: Batch, encode: Encode, stream: str) -> Tensor:
        """`[B, D]` of unit length; without a graph where nothing is to be learned."""
        learns = stream in self.embedded
        if not len(batch):
            width = self.width(stream) or 0
            return torch.zeros(0, width, device=self.log_scale.device, requires_grad=learns)
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            chunked = learns and self.chunk is not None
            options: dict[str, Any] = {"chunk": self.chunk} if chunked else {}
            return unit(encode(stream, **options).vector())

    def _positive(self, batch: Batch, places: Tensor, rows: int) -> Tensor:
        """`[B, N]` bool: what belongs together, a row and itself (its place) always."""
        found = places[:, None] == torch.arange(rows, device=places.device)
        if self.group is None:
            return found
        known = []
        for key, target in zip(batch.keys, batch.targets, strict=True):
            if "group" not in target:
                raise ValueError(f"row {key!r}: has no column {self.group!r} to be grouped by")
            known.append(number_of(target["group"]))
        ids = torch.tensor(known, dtype=torch.long).reshape(-1, 1).to(places.device)
        every, _ = gathered(ids)
        return found | ((ids == every.T) & (ids != 0))

    def predict(
        self, batch: Batch, encode: Encode, backbone: Backbone | None, **options: Any
    ) -> list[dict[str, list[float]]]:
        """A row's vector of unit length, by stream."""
        found = {name: unit(encode(name).vector()).tolist() for name in self.embedded}
        return [{name: rows[i] for name, rows in found.items()} for i in range(len(batch))]

    def metrics(self) -> RetrievalMetrics:
        return RetrievalMetrics(self.pairs, self.match)

    def extra_metrics(
        self, predictions: Sequence[Any], targets: Sequence[Mapping[str, Any]], embed: Embed
    ) -> dict[str, float]:
        """`zero_shot_accuracy` and `zero_shot_chance`, where they are asked for."""
        if self.zero_shot is None:
            return {}
        vectors = torch.tensor([p[self.zero_shot.input] for p in predictions])
        return self.zero_shot.score(vectors, [t.get("label") for t in targets], embed)

    def written(
        self,
        predictions: Sequence[Any],
        targets: Sequence[Mapping[str, Any]],
        keys: Sequence[str],
    ) -> list[dict[str, Any]]:
        """In each direction the rank of the right answer, and the row that came first."""
        metrics = self.metrics()
        metrics.update(predictions, targets)
        return metrics.answers(keys)

    def example(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [{}, {}]
        names = self.zero_shot.classes if self.zero_shot else None
        label = None if self.zero_shot is None else self.zero_shot.target
        for i, row in enumerate(rows):
            row.update({c: f"{c} {i}" for c in (self.group, self.match) if c is not None})
            if label is not None:
                row[label] = (names or ["cat", "dog"])[-i]
        return rows


def _exactly(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """No mixed precision: cosines times 100 want float32."""
    if device.type == "meta":
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def _hits(logits: Tensor, positive: Tensor) -> Tensor:
    """Rows whose largest logit belongs to them."""
    if not logits.numel():
        return logits.new_zeros(())
    return positive.gather(1, logits.detach().argmax(1, keepdim=True)).sum().float()


def _plain(value: Any) -> Any:
    """A cell as JSON holds it: numpy's scalars are Python's."""
    return value.item() if hasattr(value, "item") else value


def number_of(value: object) -> int:
    """A number of 63 bits that stands for a value in every process; 0 for null."""
    if value is None:
        return 0
    text = f"{type(value).__name__}:{value}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1 or 1
