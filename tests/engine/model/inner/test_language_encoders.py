"""A language model as an encoder, `{share: backbone}` or `causal_lm`: attention, pooler, head."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.engine.model import Model, build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check
from sensorium.engine.utils import ConfigError

CONFIG = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
ROWS = [("a dog barks", "loud"), ("a cat purrs", "soft"), ("a horse neighs", "loud"),
        ("a mouse", "soft")]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    lines = [json.dumps({"text": text, "word": word}) for text, word in ROWS]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def recipe(encoder: dict[str, Any], connector: Any, head: Any = "linear") -> dict[str, Any]:
    task = {
        "type": "classification",
        "input": "text",
        "target": "word",
        "head": head,
        "data": {"train": {"source": "json", "path": "rows.jsonl"}},
    }
    stream = {"modality": "text", "encoder": encoder, "connector": connector}
    values: dict[str, Any] = {"inputs": {"text": stream}, "tasks": {"kind": task}}
    if "share" in encoder:
        values["backbone"] = {"type": "causal", "tokenizer": "bytes", "config": CONFIG,
                              "weights": "none"}  # fmt: skip
    return copy.deepcopy(values | {"train": {"steps": 8, "batch_size": 4,
                                             "optimizer": {"lr": 0.01}}})  # fmt: skip


SHARED = {"share": "backbone"}
ALONE = {"type": "causal_lm", "tokenizer": "bytes", "config": CONFIG, "max_length": 32}
POOLERS = ["mean", "first", "last", "max", {"type": "attention_pool", "heads": 2},
           {"type": "latent_attention", "heads": 2}]  # fmt: skip


def tokens(model: Model, texts: list[str]) -> Any:
    encoder = model.stream("text").encoder
    batch = encoder.collate([encoder.processor.prepare(text) for text in texts])
    with torch.no_grad():
        return encoder(**batch)


@pytest.mark.parametrize("encoder", [SHARED, ALONE], ids=["share", "causal_lm"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_one_key_says_who_sees_whom(encoder: dict[str, Any], attention: str) -> None:
    model = build(parse_recipe(recipe({**encoder, "attention": attention}, "mean"))).eval()
    first = tokens(model, ["a cat", "a cow"])
    same = torch.equal(first.tokens[0, :3], first.tokens[1, :3])
    assert same == (attention == "causal")
    alone = tokens(model, ["a cat"])
    with_longer = tokens(model, ["a cat", "a much longer text"])
    real = alone.tokens.shape[1]
    torch.testing.assert_close(with_longer.tokens[0, :real], alone.tokens[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "qwen3", "gemma3_text"])
def test_both_ways_of_naming_it_are_one_model(kind: str) -> None:
    config = {**CONFIG, "model_type": kind, "head_dim": 8}
    both = {"attention": "bidirectional"}
    alone = build(parse_recipe(recipe({**ALONE, **both, "config": config}, "mean"))).eval()
    values = recipe({**SHARED, **both}, "mean")
    values["backbone"] |= {"config": config, "attn": "eager"}
    shared = build(parse_recipe(values)).eval()
    inner: Any = alone.stream("text").encoder
    backbone: Any = shared.backbone
    state = inner.model.state_dict()
    names = {n.removeprefix("model."): n for n in backbone.model.state_dict()}
    backbone.model.load_state_dict({names[n]: v for n, v in state.items()}, strict=False)
    texts = ["a cat purrs", "cows"]
    result, other = tokens(alone, texts), tokens(shared, texts)
    torch.testing.assert_close(result.tokens, other.tokens, atol=1e-4, rtol=1e-4)


@pytest.mark.quick_share(4)
@pytest.mark.parametrize("connector", POOLERS, ids=lambda c: c if isinstance(c, str) else c["type"])
@pytest.mark.parametrize("encoder", [SHARED, ALONE], ids=["share", "causal_lm"])
def test_any_pooler_and_head_learn(encoder: dict[str, Any], connector: Any, runner: Any) -> None:
    values = recipe({**encoder, "attention": "bidirectional"}, connector, "mlp")
    check(parse_recipe(values))
    path = Path("rows.jsonl").resolve()
    values["tasks"]["kind"]["data"]["train"]["path"] = str(path)
    runner.train(values, "run")
    losses = [loss for _, _, loss in runner.losses("run")]
    assert losses[-1] < losses[0] or len(losses) < 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "mamba2", "hidden_size": 16, "num_heads": 2, "head_dim": 16, "n_groups": 1,
          "state_size": 8, "num_hidden_layers": 1}, "cannot attend both ways"),
        ({**CONFIG, "echo": True}, "echo: attends to the whole text"),
    ],
)  # fmt: skip
def test_what_cannot_is_one_line_of_check(config: dict[str, Any], message: str) -> None:
    echo = config.pop("echo", False)
    encoder = {**ALONE, "attention": "bidirectional", "config": config, "echo": echo}
    with pytest.raises(ConfigError, match=message) as error:
        check(parse_recipe(recipe(encoder, "mean")))
    assert "\n" not in str(error.value)


def test_modernbert_is_an_encoder_too() -> None:
    """The encoder that the decoder's one is compared with, in the same place of a recipe."""
    config = {**CONFIG, "model_type": "modernbert", "pad_token_id": 0}
    encoder = {"type": "transformers", "tokenizer": "bytes", "config": config, "max_length": 32}
    model = build(parse_recipe(recipe(encoder, "mean"))).eval()
    first = tokens(model, ["a cat", "a cow"])
    assert not torch.equal(first.tokens[0, :3], first.tokens[1, :3])
    check(parse_recipe(recipe(encoder, "mean")))
