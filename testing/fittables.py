"""The contract of a part that is fitted on the training split (a tokenizer, a normalizer), and a
comparison of an encoder's rows in float64.

Legend: `T` tokens, `D` width.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load, save
from torch import Tensor

from ..engine.recipe.validation import validate_options
from ..modalities.base import Chart, Encoder, Fittable, Sample
from ..modalities.groups import collate, encode_by_group
from .common import ATOL, RTOL, checking, copy_for_worker, expect, same


def check_fittable(make: Callable[..., Fittable], rows: Iterable[Any], **options: Any) -> None:
    """Check a class against the contract of `modalities.base.Fittable`.

    Args:
        make: the class, or a function that returns an object that is not fitted yet.
        rows: examples to fit on.
        options: those of its recipe's section.

    Raises:
        AssertionError: the violated rule, in one line.
    """
    name, rows = make.__name__, list(rows)
    with checking(name, "options"):
        first, second, empty = (make(**validate_options(make, options, name)) for _ in range(3))
        name = type(first).__name__
        expect(isinstance(first, Fittable), f"{name} is no modalities.base.Fittable")
    with checking(name, "fit"):
        first.fit(iter(rows))
        second.fit(iter(rows))
        state = first.state()
        expect(same(state, second.state()), "fitting twice on equal rows yields two states")
    with checking(name, "state"):
        arrays = {k: v for k, v in state.items() if isinstance(v, np.ndarray)}
        values = {k: v for k, v in state.items() if k not in arrays}
        text = json.dumps(values)
        read = {**json.loads(text), **(load(save(_contiguous(arrays))) if arrays else {})}
    with checking(name, "load_state"):
        empty.load_state(read)
        again = empty.state()
        expect(same(_as_json(again), _as_json(state)), "the state written and read back differs")
        first.load_state(read)
        expect(same(_as_json(first.state()), _as_json(state)), "reading it again changes the state")
    with checking(name, "in a worker"):
        copy = copy_for_worker(first)
        expect(same(_as_json(copy.state()), _as_json(state)), "its copy has another state")
    with checking(name, "charts"):
        expect(all(isinstance(chart, Chart) for chart in first.charts()), "are no Charts")


def _contiguous(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(value) for name, value in arrays.items()}


def _as_json(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state as its JSON is: tuples are lists."""
    return {
        key: value if isinstance(value, np.ndarray) else json.loads(json.dumps(value))
        for key, value in state.items()
    }


FINER = 1e-6
"""By how much the tolerances of float64 are finer than those of float32."""


def equal_in_float64(encoder: Encoder, samples: Sequence[Sample], index: int) -> bool:
    """Return whether a sample has the same tokens alone and in the batch, computed in float64.

    The rounding of float32 depends on the shapes of the products, and a deep network with random
    weights may amplify it beyond any tolerance. Rows that are mixed differ in float64 as well. An
    encoder that does not run in float64, or computes in float32 inside, is not equal.
    """
    double = copy.deepcopy(encoder).double()
    try:
        with torch.no_grad():
            alone = _tokens(double, [samples[index]], 0)
            batch = _tokens(double, samples, index)
    except (RuntimeError, TypeError, ValueError):
        return False
    exact = alone.dtype == batch.dtype == torch.float64 and alone.shape == batch.shape
    scale = max(1.0, float(batch.abs().max())) if batch.numel() else 1.0
    return exact and torch.allclose(alone, batch, RTOL * FINER, ATOL * FINER * scale)


def _tokens(encoder: Encoder, samples: Sequence[Sample], row: int) -> Tensor:
    """Return the real tokens `[T, D]` of a row."""
    samples = [{name: _doubled(value) for name, value in sample.items()} for sample in samples]
    features = encode_by_group(collate(encoder, samples), lambda inputs, rows: encoder(**inputs))
    return features.tokens[row][features.mask[row]]


def _doubled(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value
