"""Every setting of every encoder's preprocessing is in its identity: no other crop, mean or size
is taken for the one that features were computed with."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from encoder_cases import CASES, examples

from sensorium.engine.cache import processor_identity
from sensorium.engine.recipe import find
from sensorium.modalities.base import Fittable, Processor
from sensorium.testing.encoders import EncoderContract

FIRST = {
    (modality, kind): options
    for modality, cases in CASES.items()
    for kind, options in reversed(cases.values())
}
"""One case of every encoder."""


def changes(value: Any) -> Iterator[Any]:
    """Other values of the same type."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, (int, float)):
        yield value + 1
    elif isinstance(value, str):
        yield f"{value}x"
    elif value is None:
        yield 1
    elif isinstance(value, (tuple, list)):
        yield type(value)([*value, 1])
        for place, item in enumerate(value):
            for other in changes(item):
                yield type(value)([*value[:place], other, *value[place + 1 :]])
    elif isinstance(value, dict):
        yield {**value, "another": 1}
        for key, item in value.items():
            yield from ({**value, key: other} for other in changes(item))
    elif isinstance(value, Processor):
        yield from changed_processors(value)
    else:
        assert isinstance(value, Fittable), f"no change is known of {value!r}"


def changed_processors(processor: Processor) -> Iterator[Processor]:
    """The processor with one setting changed, each in turn."""
    names = (
        [field.name for field in dataclasses.fields(processor)]
        if dataclasses.is_dataclass(processor)
        else [n for n in inspect.signature(type(processor)).parameters if hasattr(processor, n)]
    )
    for name in names:
        for value in changes(getattr(processor, name)):
            other = copy.copy(processor)
            object.__setattr__(other, name, value)
            yield other


@pytest.mark.parametrize(("modality", "kind"), FIRST)
def test_every_setting_changes_the_identity(modality: str, kind: str) -> None:
    contract = EncoderContract(find(f"{modality}_encoder", kind, "x"), modality, examples(modality))
    contract.build(FIRST[modality, kind])
    processor = contract.encoder.processor
    identity = processor_identity(processor)
    assert processor_identity(copy.deepcopy(processor)) == identity
    for other in changed_processors(processor):
        assert processor_identity(other) != identity, vars(other)
    processor.prepare(contract.raws[0])
    assert processor_identity(processor) == identity, "the first sample changed it"


class Inner(Processor):
    def __init__(self, size: int) -> None:
        self.size = size

    @functools.cached_property
    def table(self) -> Any:
        return object()


@dataclasses.dataclass
class Outer(Processor):
    inner: Inner
    scale: float = 1.0

    def __post_init__(self) -> None:
        self.crop = 4  # no field


def test_settings_by_default() -> None:
    outer = Outer(Inner(3))
    identity = processor_identity(outer)
    assert outer.inner.table is not None
    assert processor_identity(outer) == identity == processor_identity(Outer(Inner(3)))
    others = [Outer(Inner(4)), Outer(Inner(3), 2.0), Outer(Inner(3))]
    others[-1].crop = 5
    assert all(processor_identity(other) != identity for other in others)
