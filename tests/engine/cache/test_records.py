from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.engine.cache import (
    Store,
    fill,
    from_records,
    record_to_sample,
    sample_to_record,
    to_records,
)
from sensorium.engine.cache.keys import add_content_hash
from sensorium.modalities.base import Features

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@st.composite
def features(draw: st.DrawFn, depth: int = 1) -> Features:
    """Any Features that the contract allows, their padding as short as the grid lets it be."""
    batch, dim = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    dtype = draw(st.sampled_from(DTYPES))
    grid = draw(st.sampled_from([None, "frames", (2, 3), (2, 1, 2)]))
    if isinstance(grid, tuple):
        length = math.prod(grid)
        lengths = [draw(st.integers(0, length)) for _ in range(batch)]
    else:
        lengths = [draw(st.integers(0, 5)) for _ in range(batch)]
        length = max(lengths)
        grid = None if grid is None else (length,)
    mask = torch.arange(length) < torch.tensor(lengths)[:, None]
    numbers = torch.randn(
        batch, length, dim, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))
    )
    axes = len(grid or ())
    where = st.tuples(*[st.floats(-1e3, 1e3)] * axes) if axes else st.none()
    return Features(
        (numbers * mask[..., None]).to(dtype),
        mask,
        grid,
        draw(where),
        draw(where),
        draw(st.sampled_from([None, torch.randn(batch, 4, 4, dtype=torch.float64)])),
        draw(st.sampled_from([None, torch.randn(batch, dim).to(dtype)])),
        tuple(draw(features(0)) for _ in range(draw(st.integers(0, 2)))) if depth else (),
    )


def assert_same(one: Features, two: Features) -> None:
    for name in ("tokens", "mask", "affine", "pooled"):
        a, b = getattr(one, name), getattr(two, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype == b.dtype and torch.equal(a, b), name
    assert (one.grid, one.spacing, one.origin) == (two.grid, two.spacing, two.origin)
    assert len(one.hidden_states) == len(two.hidden_states)
    for a, b in zip(one.hidden_states, two.hidden_states, strict=True):
        assert_same(a, b)


@settings(max_examples=150, deadline=None)
@given(value=features())
def test_features_to_records_and_back(value: Features) -> None:
    layers = tuple(layer for layer in value.hidden_states if len(layer.tokens) == len(value.tokens))
    value = value.replace(hidden_states=layers)
    assert_same(from_records(to_records(value)), value)


@settings(max_examples=25, deadline=None)
@given(value=features(0))
def test_features_through_the_store(
    tmp_path_factory: pytest.TempPathFactory, value: Features
) -> None:
    store = Store(tmp_path_factory.mktemp("cache"), "features", {})
    keys = [str(i) for i in range(len(value.tokens))]
    fill(store, keys, lambda places: (to_records(value)[i] for i in places), batch_size=2)
    assert_same(from_records(store.get(keys)), value)


def test_rows_of_several_batches_make_another_batch() -> None:
    one = Features.pad([torch.randn(3, 2), torch.randn(5, 2)]).replace(grid=(5,), spacing=(0.02,))
    two = Features.pad([torch.randn(4, 2)]).replace(grid=(4,), spacing=(0.02,))
    mixed = from_records([to_records(two)[0], to_records(one)[0]])
    assert_same(
        mixed, Features.pad([two.tokens[0], one.tokens[0, :3]]).replace(grid=(4,), spacing=(0.02,))
    )


def test_grids_that_disagree_are_none() -> None:
    one = Features.dense(torch.randn(1, 4, 2), grid=(2, 2), spacing=(8.0, 8.0), origin=(4.0, 4.0))
    two = Features.dense(torch.randn(1, 6, 2), grid=(2, 3), spacing=(8.0, 8.0), origin=(4.0, 4.0))
    mixed = from_records(to_records(one) + to_records(two))
    assert mixed.grid is mixed.spacing is mixed.origin is None
    assert mixed.lengths.tolist() == [4, 6]
    agreed = from_records(to_records(one) + to_records(one.replace(spacing=(1.0, 1.0))))
    assert agreed.grid == (2, 2) and agreed.spacing is None and agreed.origin == (4.0, 4.0)


def volume(*shapes: tuple[int, ...], largest: tuple[int, ...]) -> Features:
    """A batch of volumes of some shapes, padded at the far ends of their axes."""
    real = torch.zeros(len(shapes), *largest, dtype=torch.bool)
    for row, shape in zip(real, shapes, strict=True):
        row[tuple(slice(0, n) for n in shape)] = True
    numbers = torch.randn(*real.shape, 3, generator=torch.Generator().manual_seed(0))
    return Features(
        (numbers * real[..., None]).flatten(1, -2),
        real.flatten(1),
        grid=largest,
        spacing=(2.0,) * len(largest),
        origin=(0.5,) * len(largest),
        affine=torch.eye(4).repeat(len(shapes), 1, 1),
    )


def test_volumes_of_several_shapes_come_back() -> None:
    """Each alone on its own grid; together padded as their encoder pads them."""
    shapes = [(2, 3, 4), (3, 2, 2), (1, 3, 3)]
    both = volume(*shapes, largest=(3, 3, 4))
    deep = both.replace(hidden_states=(both.replace(tokens=both.tokens * 2),))
    records = to_records(deep)
    assert_same(from_records(records), deep)
    for shape, record in zip(shapes, records, strict=True):
        alone = from_records([record])
        assert alone.grid == shape and alone.mask.all()
    assert_same(from_records(records[:2]), both_of(deep, 2))


def both_of(features: Features, rows: int) -> Features:
    """The first rows of a batch."""
    cut = {k: getattr(features, k)[:rows] for k in ("tokens", "mask", "affine")}
    return features.replace(
        **cut, hidden_states=tuple(both_of(f, rows) for f in features.hidden_states)
    )


def test_a_volume_with_holes_comes_back() -> None:
    """What lies beyond the source is no token, wherever it lies."""
    value = volume((2, 2, 2), (2, 2, 2), largest=(2, 2, 2))
    value = value.replace(mask=value.mask & (torch.arange(8) != 3))
    assert_same(from_records(to_records(value)), value)


def test_records_that_do_not_fit_are_refused() -> None:
    one, two = Features.dense(torch.randn(1, 2, 3)), Features.dense(torch.randn(1, 2, 4))
    with pytest.raises(ValueError, match=r"float32 \(3,\) and float32 \(4,\)"):
        from_records(to_records(one) + to_records(two))
    with pytest.raises(ValueError, match="1 of 2 records have 'pooled'"):
        from_records(to_records(one) + to_records(one.replace(pooled=torch.randn(1, 3))))
    with pytest.raises(ValueError, match="padded on the right"):
        to_records(Features(torch.randn(1, 2, 3), torch.tensor([[False, True]])))


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_a_smaller_precision_rounds_the_features_and_nothing_else(precision: str) -> None:
    value = Features.dense(torch.randn(2, 3, 4), affine=torch.randn(2, 4, 4))
    remaining = from_records(to_records(value, precision))
    assert torch.equal(remaining.tokens, value.tokens.to(getattr(torch, precision)))
    assert remaining.affine is not None and torch.equal(remaining.affine, value.affine)
    with pytest.raises(ValueError, match="precision is 'int4'"):
        to_records(value, "int4")


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3)])
def test_samples_to_records_and_back(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    sample = {"x": (torch.randn(shape) * 3).to(dtype), "n": torch.tensor(7)}
    back = record_to_sample(add_content_hash(sample_to_record(sample), sample))
    assert back.keys() == sample.keys()
    for name, tensor in sample.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor)
        assert back[name].shape == tensor.shape
