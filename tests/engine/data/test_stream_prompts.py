"""`prompt` of a stream: a text before every text, for two streams of one encoder."""

from __future__ import annotations

from typing import Any

import pytest

from sensorium.engine.cache.keys import encoder_identity
from sensorium.engine.data import stream_readers
from sensorium.engine.embedding.embedder import Embedder, fingerprint
from sensorium.engine.model import Model, build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.utils import ConfigError

QUERY = {
    "modality": "text",
    "encoder": {"type": "averaging", "tokenizer": "bytes", "dim": 8, "max_length": 64},
    "connector": "mean",
}


def recipe(query: dict[str, Any], passage: dict[str, Any]) -> dict[str, Any]:
    task = {"type": "contrastive", "streams": ["query", "passage"], "dim": 8}
    return {
        "inputs": {"query": {**QUERY, **query}, "passage": {"share": "query", **passage}},
        "tasks": {"match": task},
    }


def composed(query: dict[str, Any], passage: dict[str, Any]) -> Model:
    return build(parse_recipe(recipe(query, passage))).eval()


def test_a_prompt_stands_before_every_text_of_its_stream() -> None:
    model = composed({"prompt": "query: "}, {"prompt": "passage: "})
    readers = stream_readers(model.plan, model.encoders(), ["query", "passage"])
    encode = model.stream("query").encoder.processor.tokenizer.encode
    for name, prompt in (("query", "query: "), ("passage", "passage: ")):
        ids = readers[name].prepare("a text")["ids"].tolist()
        assert ids == encode(f"{prompt}a text", special=True)
    plain = composed({}, {})
    plain.load_state_dict(model.state_dict())
    ours, theirs = Embedder(model, "query", "cpu"), Embedder(plain, "query", "cpu")
    assert ours.query("a text").tolist() == theirs.query("query: a text").tolist()
    assert ours.query("a text").tolist() != theirs.query("a text").tolist()
    assert model.plan.recipe.to_dict()["inputs"]["passage"]["prompt"] == "passage: "


def test_another_prompt_is_another_stream_for_caches_and_indexes() -> None:
    model = composed({"prompt": "query: "}, {"prompt": ""})
    assert fingerprint(model, "query") != fingerprint(model, "passage")
    same = composed({}, {})
    assert fingerprint(same, "query") == fingerprint(same, "passage")
    encoder, read = same.stream("query").encoder, "sensorium.modalities.text.read:read"
    plain = encoder_identity(encoder, read=read)
    assert encoder_identity(encoder, read=read, prompt="") == plain
    assert encoder_identity(encoder, read=read, prompt="query: ") != plain


def test_a_stream_that_shares_names_its_own_prompt() -> None:
    with pytest.raises(ConfigError, match=r"inputs.passage.prompt: .*'query: '"):
        composed({"prompt": "query: "}, {})


def test_a_picture_has_no_prompt() -> None:
    values = recipe({}, {})
    image = {"modality": "image", "prompt": "x", "connector": "mean"}
    image["encoder"] = {"type": "patches", "size": 8, "patch_size": 4, "dim": 8}
    values["inputs"]["query"] = image
    values["inputs"]["passage"] = {"share": "query", "prompt": ""}
    with pytest.raises(ConfigError, match=r"inputs.query.prompt: it is put before texts"):
        build(parse_recipe(values))
