"""Batches in groups of equal shapes: what is collated, selected, and merged again."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorium.engine.cache import from_records, to_records
from sensorium.modalities.base import Encoder, Features, Sample
from sensorium.modalities.groups import (
    PER_ROW,
    PER_TOKEN,
    ShapeGroups,
    collate,
    count_rows,
    encode_by_group,
    merge,
    select_rows,
)


class Plain(Encoder):
    """Stacks its samples; a padded token would be counted as real."""

    dim = 2

    def __init__(self, *, batch_invariant: bool = False) -> None:
        super().__init__()
        self.batch_invariant = batch_invariant

    def collate(self, samples: Any) -> dict[str, Tensor]:
        values = torch.nn.utils.rnn.pad_sequence([s["x"] for s in samples], batch_first=True)
        return {"x": values}

    def forward(self, x: Tensor) -> Features:
        return Features.dense(x, grid=(x.shape[1],), spacing=(0.5,), pooled=x.sum(1))


LENGTHS = (3, 5, 3, 1, 5, 5)


@pytest.fixture
def samples() -> list[Sample]:
    torch.manual_seed(0)
    return [{"x": torch.randn(length, 2)} for length in LENGTHS]


def test_equal_shapes_and_invariant_encoders_are_one_batch(samples: list[Sample]) -> None:
    equal = [samples[1], samples[4]]
    assert not isinstance(collate(Plain(), equal), ShapeGroups)
    assert torch.equal(collate(Plain(), equal)["x"], Plain().collate(equal)["x"])  # type: ignore[index]
    whole = collate(Plain(batch_invariant=True), samples)
    assert not isinstance(whole, ShapeGroups) and whole["x"].shape == (6, 5, 2)


def test_rows_of_groups_come_back_in_order(samples: list[Sample]) -> None:
    encoder, inputs = Plain(), collate(Plain(), samples)
    assert isinstance(inputs, ShapeGroups)
    assert [rows for rows, _ in inputs] == [[0, 2], [1, 4, 5], [3]]
    result = encode_by_group(inputs, lambda tensors, rows: encoder(**tensors))
    assert (
        result.lengths.tolist() == list(LENGTHS)
        and result.grid == (5,)
        and result.spacing == (0.5,)
    )
    assert result.pooled is not None
    for row, sample in enumerate(samples):
        assert torch.equal(result.tokens[row, : LENGTHS[row]], sample["x"])
        assert not result.tokens[row, LENGTHS[row] :].any()
        assert torch.equal(result.pooled[row], sample["x"].sum(0))


@pytest.mark.parametrize("rows", [range(2), range(1, 4), range(3, 6), range(4, 6), range(6)])
def test_rows_are_selected_with_their_shapes(samples: list[Sample], rows: range) -> None:
    inputs = collate(Plain(), samples)
    selected = select_rows(inputs, rows)
    assert count_rows(selected) == len(rows)
    result = encode_by_group(selected, lambda tensors, _: Plain()(**tensors))  # type: ignore[arg-type]
    for place, row in enumerate(rows):
        assert torch.equal(result.tokens[place, : LENGTHS[row]], samples[row]["x"])
    features = encode_by_group(inputs, lambda tensors, _: Plain()(**tensors))
    cut = select_rows(features.replace(hidden_states=(features,)), rows)
    assert isinstance(cut, Features)
    assert torch.equal(cut.tokens, features.tokens[rows.start : rows.stop])
    assert torch.equal(cut.hidden_states[0].mask, features.mask[rows.start : rows.stop])


def test_gradients_flow_to_every_part() -> None:
    parts = [torch.randn(2, 3, 2, requires_grad=True), torch.randn(1, 5, 2, requires_grad=True)]
    merged = merge([([0, 2], Features.dense(parts[0])), ([1], Features.dense(parts[1]))])
    merged.tokens.square().sum().backward()
    for part in parts:
        assert torch.equal(part.grad, 2 * part.detach())  # type: ignore[arg-type]


def features(rows: int, length: int, grid: tuple[int, ...] | None, **fields: Any) -> Features:
    where = {} if grid is None else {"spacing": (2.0,) * len(grid), "origin": (1.0,) * len(grid)}
    return Features.dense(torch.randn(rows, length, 3), grid=grid, **where, **fields)


def volume(rows: int, *grid: int) -> Features:
    return features(rows, math.prod(grid), grid, affine=torch.randn(rows, 4, 4))


CASES: dict[str, Any] = {
    "one length": lambda: [features(2, 4, (4,)), features(1, 4, (4,))],
    "frames": lambda: [features(2, 4, (4,)), features(1, 7, (7,)), features(3, 1, (1,))],
    "no grid": lambda: [features(2, 4, None), features(1, 6, None)],
    "no grid in one": lambda: [features(2, 4, (4,)), features(1, 6, None)],
    "pictures": lambda: [features(2, 6, (2, 3)), features(1, 6, (2, 3))],
    "pictures that differ": lambda: [features(2, 6, (2, 3)), features(1, 4, (2, 2))],
    "axes that differ": lambda: [features(2, 6, (2, 3)), features(1, 6, (6,))],
    "volumes": lambda: [volume(2, 2, 1, 3), volume(1, 1, 3, 2)],
    "steps that differ": lambda: [
        features(1, 4, (4,)),
        features(1, 4, (4,)).replace(spacing=(9.0,)),
    ],
    "pooled": lambda: [features(2, 3, (3,), pooled=torch.randn(2, 3)) for _ in range(2)],
    "hidden layers": lambda: [
        features(1, n, (n,), hidden_states=(features(1, n, (n,)), features(1, 2 * n, (2 * n,))))
        for n in (2, 5)
    ],
    "positions and codes": lambda: [
        features(2, n, (n,), positions=torch.randn(2, n, 2), codes=torch.arange(2 * n).view(2, n))
        for n in (3, 5)
    ],
    "codes of volumes": lambda: [
        volume(1, *grid).replace(codes=torch.arange(math.prod(grid))[None])
        for grid in ((2, 1, 3), (1, 3, 2))
    ],
}


@pytest.mark.parametrize("case", CASES)
def test_merged_features_are_those_of_the_cache(case: str) -> None:
    """Stored apart and read as one batch, or merged: the same."""
    torch.manual_seed(0)
    parts, rows = CASES[case](), []
    order = torch.randperm(sum(len(part.tokens) for part in parts)).tolist()
    for part in parts:
        rows.append(sorted(order[: len(part.tokens)]))
        order = order[len(part.tokens) :]
    pairs = list(zip(rows, parts, strict=True))
    records = {i: r for members, part in pairs for i, r in zip(members, to_records(part))}  # noqa: B905
    stored = from_records([records[i] for i in range(len(records))])
    assert_equal(merge(pairs), stored)


def assert_equal(one: Features, two: Features) -> None:
    for name in (*PER_TOKEN, *PER_ROW):
        a, b = getattr(one, name), getattr(two, name)
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b)), name
    assert (one.grid, one.spacing, one.origin) == (two.grid, two.spacing, two.origin)
    for a, b in zip(one.hidden_states, two.hidden_states, strict=True):
        assert_equal(a, b)


def test_every_tensor_of_features_is_merged() -> None:
    tensors = {f.name for f in dataclasses.fields(Features) if "Tensor" in str(f.type)}
    assert tensors == {*PER_TOKEN, *PER_ROW}


def test_what_does_not_fit_is_refused() -> None:
    one = features(1, 2, None)
    with pytest.raises(ValueError, match="some have 'pooled', others have not"):
        merge([([0], one), ([1], one.replace(pooled=torch.randn(1, 3)))])
    with pytest.raises(ValueError, match="no common number of rows \\(x 2, size 1\\)"):
        count_rows({"x": torch.zeros(2, 3), "size": torch.zeros(1)})
