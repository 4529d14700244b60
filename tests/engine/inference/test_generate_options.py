"""An option of `generate` that does not fit is named, whatever the library says of it."""

from __future__ import annotations

import typing
from typing import Any

import numpy as np
import pytest

from sensorium.engine.inference import Pipeline
from sensorium.engine.inference.options import _options_model, check_options
from sensorium.engine.inference.predict import input_name
from sensorium.engine.model import build
from sensorium.engine.recipe import load, parse_recipe
from sensorium.engine.utils import ConfigError
from sensorium.tasks import TASKS

RECIPE = {
    "inputs": {
        "image": {
            "modality": "image",
            "encoder": {"type": "patches", "size": 8, "patch_size": 4, "dim": 16},
            "connector": "linear",
        }
    },
    "backbone": {
        "type": "causal",
        "name": "tiny-llama",
        "tokenizer": "bytes",
        "weights": "none",
        "options": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1},
    },
    "tasks": {
        "a": {
            "type": "captioning",
            "prompt": "<image>:",
            "target": "{word}",
            "max_new_tokens": 2,
            "data": {"train": {"source": "digits", "split": "train", "limit": 4}},
        }
    },
}


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline(build(parse_recipe(RECIPE)))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"num_beams": "x"}, r"a\.num_beams: found 'x' \(str\), expected int > 0"),
    ({"num_beams": [2]}, r"a\.num_beams: found \[2\]"),
    ({"num_beams": 0}, r"a\.num_beams: found 0 "),
    ({"eos_token_id": "a"}, r"a\.eos_token_id: found 'a'"),
    ({"num_beams": 2, "length_penalty": "a"}, r"a\.length_penalty: found 'a'"),
    ({"temperature": "hot", "do_sample": True}, r"a\.temperature: found 'hot'"),
    ({"temperature": -1, "do_sample": True}, r"a\.temperature: found -1 "),
    ({"temperature": float("nan"), "do_sample": True}, r"a\.temperature: found nan"),
    ({"max_new_tokens": -1}, r"a\.max_new_tokens: found -1 "),
    ({"max_new_tokens": True}, r"a\.max_new_tokens: found True "),
    ({"top_p": 7}, r"a\.top_p: found 7 \(int\), expected float > 0 and <= 1"),
    ({"top_p": 0.9}, r"a: top_p: has an effect only with do_sample: true"),
    ({"length_penalty": 2.0}, r"a: length_penalty: has an effect only with num_beams above 1"),
    ({"num_return_sequences": 2}, r"a\.num_return_sequences: found 2"),
    ({"no_such_option": 3}, r"a\.no_such_option: Captioning has no such option"),
    ({"max_new_token": 3}, r"a\.max_new_token: .*did you mean 'max_new_tokens'"),
]


@pytest.mark.parametrize(("options", "line"), WRONG)
def test_an_option_that_does_not_fit(
    pipeline: Pipeline, options: dict[str, Any], line: str
) -> None:
    rows = [{"image": np.zeros((8, 8), np.uint8)}]
    with pytest.raises(ConfigError, match=line) as caught:
        list(pipeline.predict_rows("a", rows, ["image"], options))
    assert "\n" not in str(caught.value)


def test_options_that_fit(pipeline: Pipeline) -> None:
    rows = [{"image": np.zeros((8, 8), np.uint8)}] * 2
    answers = list(pipeline.predict_rows("a", rows, ["image"], {"num_beams": 2}))
    assert len(answers) == 2 and all(failure is None for _, failure in answers)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_options_of_every_task_have_a_range(name: str) -> None:
    """A number without bounds would be passed on whatever it is."""
    task = object.__new__(load(TASKS[name]))
    with pytest.raises(ConfigError, match=r"^t\.no_such_option: .* has no such option"):
        check_options(task, "t", {"no_such_option": 1})
    for option, field in _options_model(type(task)).model_fields.items():
        if option in ANY_NUMBER or not {int, float} & set(numbers_of(field.annotation)):
            continue
        for value in (-1e9, float("nan"), float("inf")):
            with pytest.raises(ConfigError, match=rf"^t\.{option}: found "):
                check_options(task, "t", {option: value})


ANY_NUMBER = {"length_penalty", "sequence_bias"}


def numbers_of(annotation: Any) -> list[Any]:
    inner = [leaf for part in typing.get_args(annotation) for leaf in numbers_of(part)]
    return inner or [annotation]


NAMED = [
    # The row, why it failed, and what the warning calls it.
    ({"image": "a/b.png"}, "ValueError: too small", "input 3 (a/b.png)"),
    ({"image": "a/b.png"}, "a/b.png: no picture", "input 3"),
    ({"volume": 5, "text": "two\nlines"}, "too long", "input 3 (two lines)"),
    ({"text": "x" * 200}, "too long", f"input 3 ({'x' * 117}...)"),
    ({"values": [1.0]}, "one sample", "input 3"),
]


@pytest.mark.parametrize(("row", "failure", "name"), NAMED)
def test_an_input_that_fails_is_named(row: dict[str, Any], failure: str, name: str) -> None:
    assert input_name(2, row, failure) == name
