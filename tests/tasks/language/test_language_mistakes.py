"""Mistakes of recipes that learn from text: each is one line, most of them of `check`."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check, train
from sensorium.engine.utils import ConfigError, RuntimeFailure
from sensorium.tests.tasks.language.test_language_recipe import (
    TEXT_ENCODER,
    masked_recipe,
    recipe,
)
from sensorium.tests.tasks.language.tiny import GPT2, ROWS, SMALL

XMOD = {"model_type": "xmod", **SMALL, "languages": ["en", "de"], "default_language": "fr"}
CANINE = {"model_type": "canine", **SMALL}
LANGUAGES = {"conditions": {"language": ["de", "sw"]}}
TEXT = {"text": "a b"}


def decoder(kind: str, row: Any, *objectives: str, **options: Any) -> Any:
    values = recipe(kind, "DATA", *objectives)
    values["tasks"]["language"] |= options
    return values, row


def encoder(row: Any = ROWS[0], changes: Any = None, **options: Any) -> Any:
    return masked_recipe("DATA", {**TEXT_ENCODER, **(changes or {})}, **options), row


CASES = {
    "an objective that an encoder-decoder cannot learn": (
        decoder("seq2seq", TEXT, "causal"),
        "objectives: `causal` leaves the encoder of an encoder-decoder without a text; use prefix",
    ),
    "a term that needs an encoder": (
        decoder("causal", TEXT, "causal", terms=[{"type": "contrast"}]),
        "terms: contrast reads the encoder of an encoder-decoder; take `type: seq2seq`",
    ),
    "future tokens of an encoder that sees them": (
        encoder(pretext=[{"type": "future"}]),
        r"future predicts tokens that the encoder sees \(bidirectional attention\)",
    ),
    "an encoder without a head": (
        encoder(changes={"lm_head": False}),
        "needs vocabulary of inputs.text.encoder",
    ),
    "an encoder that has no masked-LM head in the library": (
        encoder(changes={"config": CANINE}),
        "canine has no AutoModelForMaskedLM head",
    ),
    "an empty text of a decoder": (
        decoder("causal", {"text": ""}, "causal"),
        "text: is empty; expected a text of one token or more",
    ),
    "an empty text of an encoder": (
        encoder({"text": ""}),
        r"#0: the text is empty; expected at least one character",
    ),
    "a tokenizer without a mask": (
        encoder(changes={"tokenizer": "characters"}),
        "its tokenizer has no mask token; take the model's own, bytes or bpe",
    ),
    "a language that the conditions lack": (
        encoder({**TEXT, "language": "dee"}, **LANGUAGES),
        "language: found 'dee', which conditions.language does not list; did you mean 'de'",
    ),
    "a language that the encoder lacks": (
        encoder(changes={"config": XMOD}),
        "config.default_language: found 'fr', and xmod has adapters of en, de",
    ),
}


def with_data(values: Any, row: dict[str, Any], folder: Path) -> Any:
    data = folder / "rows.jsonl"
    data.write_text(json.dumps(row))
    values = copy.deepcopy(values)
    for task in values["tasks"].values():
        task["data"] = {s: {"source": "json", "path": str(data)} for s in ("train", "test")}
    return parse_recipe(values)


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_one_line_of_check(name: str, tmp_path: Path) -> None:
    (values, row), message = CASES[name]
    with pytest.raises(ConfigError, match=message) as error:
        check(with_data(values, row, tmp_path))
    assert "\n" not in str(error.value) and ": :" not in str(error.value)


def test_a_text_longer_than_the_positions_is_one_line_and_names_its_row(tmp_path: Path) -> None:
    (values, row) = decoder("causal", {"text": "y" * 200}, "causal")
    values["backbone"] = {"type": "causal", "config": GPT2, "tokenizer": "bytes", "weights": "none"}
    with pytest.raises(RuntimeFailure, match=r"rows.jsonl#0.*128 positions, found 201") as error:
        train(with_data(values, row, tmp_path), tmp_path / "run", show=False)
    assert "\n" not in str(error.value)
