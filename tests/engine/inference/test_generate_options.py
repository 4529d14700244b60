"""An option of `generate` that does not fit is named, whatever the library says of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sensorium.engine.inference import Pipeline
from sensorium.engine.model import build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.utils import ConfigError

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
    ({"num_beams": "x"}, r"a: num_beams: found 'x': "),
    ({"num_beams": [2]}, r"a: num_beams: found \[2\]: "),
    ({"num_beams": 0}, r"a: num_beams: found 0: "),
    ({"eos_token_id": "a"}, r"a: eos_token_id: found 'a': "),
    ({"num_beams": 2, "length_penalty": "a"}, r"a: .*length_penalty"),
    ({"temperature": "hot", "do_sample": True}, r"a: .*temperature"),
    ({"max_new_tokens": -1}, r"a: .*max_new_tokens"),
    ({"no_such_option": 3}, r"a: .*no_such_option"),
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
