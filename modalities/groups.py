"""Samples of different shapes in one batch, for encoders whose features padding changes.

`collate` keeps such samples apart, grouped by shape; each group is encoded by itself, and
`merge` puts the features together again, padded, in the order of the rows.

Legend: `B` rows of a batch, `T` tokens, `D` width.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from .base import TO_SOURCE, Encoder, Features, Sample

logger = logging.getLogger(__name__)

Tensors = dict[str, Tensor]
"""The keyword arguments of an encoder's forward."""

PER_TOKEN = ("tokens", "mask", "positions", "codes")
"""The fields of `Features` that have a value for each token, `[B, T, ...]`."""
PER_ROW = ("affine", "pooled")
"""Those that have one for each row, `[B, ...]`."""


@dataclass(frozen=True)
class ShapeGroups:
    """A batch in groups of rows whose samples have equal shapes.

    groups: of each, its rows in ascending order, and their samples collated.
    """

    groups: tuple[tuple[list[int], Tensors], ...]

    def __iter__(self) -> Iterator[tuple[list[int], Tensors]]:
        return iter(self.groups)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As `Tensor.to`, for every tensor."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> Self:
        """As `Tensor.pin_memory`, for every tensor."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        mapped = (
            (rows, {name: function(value) for name, value in tensors.items()})
            for rows, tensors in self.groups
        )
        return type(self)(tuple(mapped))


EncoderInputs = Tensors | ShapeGroups
"""The samples of a batch, as an encoder takes them."""

StreamInput = EncoderInputs | Features
S = TypeVar("S", bound=EncoderInputs | Features)
"""What a stream starts from: samples, or features that its encoder computed before."""


def collate(encoder: Encoder, samples: Sequence[Sample]) -> EncoderInputs:
    """Return the samples as one batch; as groups of equal shapes if shapes differ and the encoder
    is not `batch_invariant`, or stacks its samples unchanged."""
    if encoder.batch_invariant and type(encoder).collate is not Encoder.collate:
        return _collated(encoder, samples)
    groups: dict[object, list[int]] = {}
    for row, sample in enumerate(samples):
        shapes = tuple(sorted((name, tuple(value.shape)) for name, value in sample.items()))
        groups.setdefault(shapes, []).append(row)
    if len(groups) == 1:
        return _collated(encoder, samples)
    return ShapeGroups(
        tuple((rows, _collated(encoder, [samples[i] for i in rows])) for rows in groups.values())
    )


def _collated(encoder: Encoder, samples: Sequence[Sample]) -> Tensors:
    """Return the samples as the encoder collates them, and their matrices to the source: no
    encoder has to know of those."""
    if TO_SOURCE not in samples[0]:
        return encoder.collate(samples)
    signals = [{k: v for k, v in sample.items() if k != TO_SOURCE} for sample in samples]
    matrices = torch.stack([sample[TO_SOURCE] for sample in samples])
    return {**encoder.collate(signals), TO_SOURCE: matrices}


NOISE = 1e-4
"""Relative difference of features that is no more than rounding."""


def try_batch_invariance(encoder: Encoder) -> None:
    """Set `batch_invariant` to False where a sample's features change beside a longer one.

    What libraries call an encoder may mix over positions that are padding, in spite of its mask;
    only a run of it shows that.
    """
    devices = {p.device.type for p in encoder.parameters()}
    if not encoder.batch_invariant or devices - {"cpu"}:
        return
    training = {module: module.training for module in encoder.modules()}
    try:
        samples = encoder.padding_samples()
        if len({tuple(v.shape for v in sample.values()) for sample in samples}) < 2:
            return
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            encoder.eval()
            alone = [encoder(**encoder.collate([sample])) for sample in samples]
            together = encoder(**encoder.collate(samples))
    except Exception as error:  # the first batch raises it, with its place
        logger.debug("no trial of padding: %s", error, exc_info=error)
        return
    finally:
        for module, mode in training.items():
            module.training = mode
    encoder.batch_invariant = all(
        _same(features, together, row) for row, features in enumerate(alone)
    )


def try_encoders(model: nn.Module) -> None:
    """Try the batch invariance of every encoder in a model."""
    for module in model.modules():
        if isinstance(module, Encoder):
            try_batch_invariance(module)


def _same(alone: Features, batch: Features, row: int) -> bool:
    """Return whether a row of a batch has the features that it has alone."""
    first, second = alone.tokens[0][alone.mask[0]], batch.tokens[row][batch.mask[row]]
    if first.shape != second.shape:
        return False
    return float((first - second).abs().max()) <= NOISE * (1e-6 + float(first.abs().max()))


def groups_of(inputs: EncoderInputs) -> Iterator[tuple[list[int] | None, Tensors]]:
    """Yield rows and tensors of each group; the rows are None if the batch is one group."""
    if isinstance(inputs, ShapeGroups):
        yield from inputs
    else:
        yield None, inputs


def encode_by_group(
    inputs: EncoderInputs, run: Callable[[Tensors, list[int] | None], Features]
) -> Features:
    """Return the features of a batch from `run(tensors, rows)` of each of its groups."""
    if not isinstance(inputs, ShapeGroups):
        return run(inputs, None)
    return merge([(rows, run(tensors, rows)) for rows, tensors in inputs])


def count_rows(inputs: StreamInput) -> int:
    """Return the number of rows. Raise ValueError if tensors disagree about it."""
    if isinstance(inputs, Features):
        return len(inputs.tokens)
    total = 0
    for rows, tensors in groups_of(inputs):
        counts = {name: len(value) for name, value in tensors.items()}
        if len({*counts.values(), *([] if rows is None else [len(rows)])}) != 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise ValueError(f"a batch has no common number of rows ({listed})")
        total += next(iter(counts.values()))
    return total


def select_rows(inputs: S, rows: Sequence[int]) -> S:
    """Return some rows, counted from the first of them: views of consecutive ones, copies of
    others."""
    index = slice(rows.start, rows.stop) if isinstance(rows, range) else list(rows)
    if isinstance(inputs, Features):
        fields = {f.name: getattr(inputs, f.name) for f in dataclasses.fields(inputs)}
        tensors = {name: value[index] for name, value in fields.items() if torch.is_tensor(value)}
        layers = tuple(select_rows(layer, rows) for layer in inputs.hidden_states)
        return cast(S, inputs.replace(**tensors, hidden_states=layers))
    if not isinstance(inputs, ShapeGroups):
        return cast(S, {name: value[index] for name, value in inputs.items()})
    position_of = {row: position for position, row in enumerate(rows)}
    groups: list[tuple[list[int], Tensors]] = []
    for members, tensors in inputs:
        inside = [i for i, row in enumerate(members) if row in position_of]
        if inside:
            chosen = {name: value[inside] for name, value in tensors.items()}
            groups.append(([position_of[members[i]] for i in inside], chosen))
    return cast(S, groups[0][1] if len(groups) == 1 else ShapeGroups(tuple(groups)))


def merge(parts: Sequence[tuple[Sequence[int], Features]]) -> Features:
    """Return the features of a batch from those of its parts, each with the rows that it holds.

    Padded with zeros: on the right, and volumes (an affine, grids of as many axes) at the far
    ends of their axes. If other grids disagree there is none. The features of a batch that comes
    from the cache are padded alike. Gradients flow to every part.
    """
    rows, features = [list(part) for part, _ in parts], [part for _, part in parts]
    shapes, grid = _shapes(features)
    mixed_grids = grid is None and any(part.grid is not None for part in features)
    merged: dict[str, Any] = {
        "grid": grid,
        "spacing": None if mixed_grids else _agreed(features, "spacing"),
        "origin": None if mixed_grids else _agreed(features, "origin"),
        "hidden_states": tuple(
            merge(list(zip(rows, layers, strict=True)))
            for layers in zip(*(part.hidden_states for part in features), strict=True)
        ),
    }
    for name in (*PER_TOKEN, *PER_ROW):
        values = [getattr(part, name) for part in features]
        if all(value is None for value in values):
            continue
        if any(value is None for value in values):
            raise ValueError(f"features of one batch: some have {name!r}, others have not")
        merged[name] = _join(rows, values, shapes if name in PER_TOKEN else [()] * len(rows))
    return features[0].replace(**merged)


def _join(
    rows: Sequence[list[int]], values: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]
) -> Tensor:
    """Place values `[rows, T, ...]`, whose tokens are laid out as `shapes`, into one tensor."""
    largest = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    tail = values[0].shape[2:] if largest else values[0].shape[1:]
    merged = values[0].new_zeros(sum(map(len, rows)), *largest, *tail)
    for members, value, shape in zip(rows, values, shapes, strict=True):
        placed = value.unflatten(1, shape) if shape else value
        region: tuple[Tensor | slice, ...] = (torch.tensor(members), *map(slice, shape))
        merged[region] = placed
    return merged.flatten(1, len(largest)) if largest else merged


def _shapes(features: Sequence[Features]) -> tuple[list[tuple[int, ...]], tuple[int, ...] | None]:
    """Return how the tokens of each part are laid out before padding, and the common grid."""
    grids = [part.grid for part in features]
    lengths: list[tuple[int, ...]] = [(part.tokens.shape[1],) for part in features]
    present = [grid for grid in grids if grid is not None]
    axes = {len(grid) for grid in present}
    if len(present) < len(grids) or len(axes) > 1:
        return lengths, None
    if axes == {1}:
        return lengths, max(present)
    if len(set(present)) == 1:
        return present, present[0]
    if any(part.affine is None or part.positions is not None for part in features):
        return lengths, None
    return present, tuple(max(sizes) for sizes in zip(*present, strict=True))


def _agreed(features: Sequence[Features], name: str) -> tuple[float, ...] | None:
    values = {getattr(part, name) for part in features}
    return values.pop() if len(values) == 1 else None
