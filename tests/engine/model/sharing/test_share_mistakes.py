"""Mistakes in sharing are one line, with their place."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sensorium.engine.model import build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.model.sharing.shared_streams import (
    ENCODER,
    LLAMA,
    recipe,
    stream,
)

IMAGE = {"modality": "image", "encoder": {"type": "patches", "size": 8, "patch_size": 4, "dim": 8},
         "connector": "linear"}  # fmt: skip

MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown stream": (
        {"passage": stream({"share": "qery"})},
        r"passage\.encoder\.share: found 'qery', expected another .*did you mean 'query'",
    ),
    "an unknown stream, whole": (
        {"passage": {"share": "qery"}},
        r"inputs\.passage\.share: found 'qery', .*did you mean 'query'",
    ),
    "no name": ({"passage": {"share": ["query"]}}, r"passage\.share: found \['query'\], expected"),
    "nothing": (
        {"passage": stream({"share": None})},
        r"passage\.encoder\.type: is required",
    ),
    "a decoder, whole": (
        {"passage": {"share": "backbone"}},
        r"passage\.share: .*the layers of a decoder are shared by encoder: \{share",
    ),
    "itself": ({"passage": stream({"share": "passage"})}, r"passage shares passage, a circle"),
    "itself, whole": ({"passage": {"share": "passage"}}, r"passage\.share: found 'passage'"),
    "a circle": (
        {"query": stream({"share": "passage"}), "passage": stream({"share": "query"})},
        r"query\.encoder\.share: query shares passage shares query, a circle",
    ),
    "a circle, whole": (
        {"query": {"share": "passage"}, "passage": {"share": "query"}},
        r"inputs\.query\.share: query and passage share each other",
    ),
    "a chain": (
        {"passage": stream({"share": "query"}), "third": stream({"share": "passage"})},
        r"third\.encoder\.share: passage shares the encoder of query; set share: query",
    ),
    "a chain, whole": (
        {"passage": {"share": "query"}, "third": {"share": "passage"}},
        r"inputs\.third\.share: passage is shared itself; set share: query",
    ),
    "a type beside it": (
        {"passage": stream({"share": "query", "type": "transformers"})},
        r"passage\.encoder\.type: cannot be combined with share: query; set it in inputs\.query",
    ),
    "freezing beside it": (
        {"passage": stream({"share": "query", "freeze": True})},
        r"passage\.encoder\.freeze: cannot be combined with share: query",
    ),
    "an option beside it": (
        {"passage": stream({"share": "query", "max_length": 8})},
        r"passage\.encoder\.max_length: cannot be combined with share: query",
    ),
    "a connector beside a stream": (
        {"passage": {"share": "query", "connector": "mean"}},
        r"passage\.connector: cannot be combined with share: query, which is short for encoder and",
    ),
    "a connector that is none": (
        {
            "query": {"modality": "text", "encoder": ENCODER},
            "passage": stream({"share": "query"}, {"share": "query"}),
        },
        r"passage\.connector\.share: found 'query', expected another stream with a section",
    ),
    "lora beside a decoder": (
        {"passage": stream({"share": "backbone", "lora": {"r": 2}})},
        r"passage\.encoder\.lora: cannot be combined with share: backbone; set it in backbone",
    ),
    "an option of no decoder's": (
        {"passage": stream({"share": "backbone", "pooling": "mean"})},
        r"passage\.encoder\.pooling: .*no such option",
    ),
    "an attention that is none": (
        {"passage": stream({"share": "backbone", "attention": "both"})},
        r"passage\.encoder\.attention: found 'both'",
    ),
    "a decoder as a connector": (
        {"passage": stream(ENCODER, {"share": "backbone"})},
        r"passage\.connector\.share: backbone is a decoder",
    ),
    "a decoder of pictures": (
        {"passage": {**IMAGE, "encoder": {"share": "backbone"}}},
        r"passage\.encoder\.share: a decoder reads text, and the modality of inputs\.passage gives",
    ),
    "a connector of another width": (
        {"passage": {**IMAGE, "connector": {"share": "query"}}, "backbone": None},
        r"passage\.connector: inputs\.query\.connector takes tokens of width 16, the encoder .* 8",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(mistake: str) -> None:
    inputs, line = MISTAKES[mistake]
    values = recipe(stream(ENCODER), backbone=LLAMA)
    values |= {} if "backbone" not in inputs else {"backbone": inputs["backbone"]}
    values["inputs"] |= {k: copy.deepcopy(v) for k, v in inputs.items() if k != "backbone"}
    values["tasks"]["match"]["streams"] = list(values["inputs"])
    with pytest.raises(ConfigError, match=line) as error:
        build(parse_recipe(values))
    assert "\n" not in str(error.value)
