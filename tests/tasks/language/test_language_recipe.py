"""Language modelling in a recipe: pretrained sentinels, baselines, and a training."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from sensorium.engine.model import build
from sensorium.modalities.text.tokenizers import PretrainedTokenizer
from sensorium.tasks.language import Markers
from sensorium.testing.context import prepare_batch
from sensorium.tests.tasks.language.tiny import (
    BERT,
    GPT2,
    ROWS,
    SMALL,
    T5,
    backbone_of,
    built,
)


def test_pretrained_sentinels_are_reused() -> None:
    """T5's stand at the end of its vocabulary, the first one last; none is added beside them."""
    backend = Tokenizer(WordLevel({w: i for i, w in enumerate(["<p>", "</s>", "a", "b"])}))
    backend.add_special_tokens([f"<extra_id_{k}>" for k in reversed(range(3))])
    state = {"tokenizer": backend.to_str(), "pad_id": 0, "eos_id": 1}
    state |= {"bos_id": None, "mask_id": None}
    tokenizer = PretrainedTokenizer(name="t5")
    tokenizer.load_state(state)
    assert Markers(("PRE", "0", "1", "3")).pretrained(tokenizer) == [None, 6, 5, None]
    backbone = backbone_of("seq2seq", {**T5, "vocab_size": 300})
    backbone.tokenizer = tokenizer
    task = built(backbone, "span_corruption", sentinels=4)
    assert task.marker_ids.tolist() == [6, 5, 4, 300]
    assert backbone.num_added_tokens == 1
    assert not built(backbone, "span_corruption", sentinels=3).marker_ids.gt(6).any()
    assert backbone.num_added_tokens == 1


def test_the_unigram_baseline_is_the_frequency_of_tokens() -> None:
    gpt2 = backbone_of("causal", GPT2)
    task = built(gpt2, "causal")
    batch = prepare_batch(task, [{"text": "aab"}], decoder=gpt2, training=False)
    metrics = task.unigram_metrics([batch], [batch])
    odds = [3, 3, 2, 2]  # a, a, b and the end, one more of each than there are
    expected = -sum(math.log(count / (4 + 260)) for count in odds) / 4
    assert metrics["unigram_loss"] == pytest.approx(expected)
    assert metrics["unigram_perplexity"] == pytest.approx(math.exp(expected))


TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
TINY |= {"num_attention_heads": 2, "num_key_value_heads": 2}
TINY_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_decoder_layers": 1}
NAMES = {"causal": ("tiny-llama", TINY), "seq2seq": ("tiny-t5", {**TINY_T5, "num_heads": 2})}


def recipe(kind: str, data: str, *objectives: str) -> dict[str, Any]:
    name, options = NAMES[kind]
    task = {"type": "language_modeling", "objectives": dict.fromkeys(objectives, 1.0)}
    task |= {
        "sentinels": 6,
        "data": {s: {"source": "json", "path": data} for s in ("train", "test")},
    }
    return {
        "backbone": {
            "type": kind,
            "name": name,
            "tokenizer": "bytes",
            "weights": "none",
            "options": options,
        },
        "tasks": {"language": task},
        "train": {"steps": 12, "batch_size": 4, "optimizer": {"lr": 0.03}, "log_every": 1},
    }


@pytest.mark.quick_share(2)
@pytest.mark.parametrize("kind", NAMES)
def test_a_recipe_is_checked_trained_and_evaluated(kind: str, tmp_path: Any) -> None:
    from sensorium import load
    from sensorium.engine.evaluation import evaluate
    from sensorium.engine.recipe import parse_recipe
    from sensorium.engine.training import check, train
    from sensorium.engine.utils import read_metrics

    data = tmp_path / "texts.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in ROWS[:3] * 4))
    names = ("causal", "span_corruption") if kind == "causal" else ("prefix", "ul2")
    values = parse_recipe(recipe(kind, str(data), *names))
    report = str(check(values))
    assert f"{6 if kind == 'causal' else 9} tokens added" in report, report
    train(values, tmp_path / "run", show=False)
    losses = [line["loss"] for line in read_metrics(tmp_path / "run") if "loss" in line]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.3
    pipeline = load(tmp_path / "run")
    (answer,) = pipeline.generate("language", text=["a red circle"])
    assert set(answer["scores"]) == set(names)
    scores = evaluate(pipeline.model)["language"]
    assert scores["loss"] < scores["untrained_loss"] - 0.3
    assert scores["untrained_loss"] == pytest.approx(math.log(scores["untrained_perplexity"]))
    assert 0 < scores["unigram_loss"] < math.log(260 + 9)


def test_a_masked_backbone_is_refused_by_name(tmp_path: Any) -> None:
    from sensorium.engine.recipe import parse_recipe
    from sensorium.engine.training import check
    from sensorium.engine.utils import ConfigError

    data = tmp_path / "texts.jsonl"
    data.write_text(json.dumps(ROWS[0]))
    values = recipe("causal", str(data), "causal")
    values["backbone"] = {"type": "masked", "config": BERT, "tokenizer": "bytes", "weights": "none"}
    with pytest.raises(ConfigError, match="causal") as error:
        check(parse_recipe(values))
    assert "\n" not in str(error.value)


TEXT_ENCODER = {
    "type": "transformers",
    "config": {"model_type": "xlm-roberta", **SMALL},
    "tokenizer": "bytes",
    "weights": "none",
    "lm_head": True,
    "max_length": 60,
}


def masked_recipe(data: str, encoder: dict[str, Any], **options: Any) -> dict[str, Any]:
    task = {"type": "masked_lm", **options}
    task["data"] = {split: {"source": "json", "path": data} for split in ("train", "test")}
    return {
        "inputs": {"text": {"modality": "text", "encoder": encoder}},
        "tasks": {"masked": task},
        "train": {"steps": 12, "batch_size": 4, "optimizer": {"lr": 0.02}, "log_every": 1},
    }


@pytest.mark.slow
def test_an_encoder_is_trained_exported_and_continued(tmp_path: Any) -> None:
    """The disposable decoders stay behind; masked-LM training goes on from the encoder alone."""
    from sensorium import load
    from sensorium.engine.evaluation import evaluate
    from sensorium.engine.recipe import parse_recipe
    from sensorium.engine.training import check, train

    data = tmp_path / "texts.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in ROWS[:3] * 4))
    pretext = [{"type": "enhanced"}, {"type": "condenser", "early": 0}]
    values = masked_recipe(str(data), TEXT_ENCODER, pretext=pretext)
    check(parse_recipe(values))
    train(parse_recipe(values), tmp_path / "run", show=False)
    model = load(tmp_path / "run").model
    scores = evaluate(model)["masked"]
    assert scores["loss"] < scores["untrained_loss"] - 0.3
    assert 0 < scores["unigram_loss"] < math.log(260)
    assert {"accuracy", "enhanced_loss", "condenser_loss"} <= set(scores)
    alone = masked_recipe(str(data), {**TEXT_ENCODER, "weights": f"{tmp_path / 'run'}:text"})
    continued = build(parse_recipe(alone))
    before, after = (m.stream("text").encoder.state_dict() for m in (model, continued))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    again = evaluate(continued.eval())["masked"]
    assert again["loss"] == pytest.approx(scores["loss"], rel=1e-4)


def test_an_encoder_without_a_vocabulary_is_refused_by_name(tmp_path: Any) -> None:
    from sensorium.engine.recipe import parse_recipe
    from sensorium.engine.training import check
    from sensorium.engine.utils import ConfigError

    data = tmp_path / "texts.jsonl"
    data.write_text(json.dumps(ROWS[0]))
    values = masked_recipe(str(data), {**TEXT_ENCODER, "lm_head": False})
    with pytest.raises(ConfigError, match=r"needs vocabulary of inputs\.text\.encoder") as error:
        check(parse_recipe(values))
    assert "\n" not in str(error.value)


def test_causal_training_becomes_masked_at_a_step(tmp_path: Any) -> None:
    """One stack, first under the causal mask, then under the full one; what Adam knows stays."""
    from sensorium.engine.recipe import parse_recipe
    from sensorium.engine.training import train
    from sensorium.engine.utils import read_metrics

    data = tmp_path / "texts.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in ROWS[:3] * 4))
    values = recipe("causal", str(data), "causal")
    shared = {"share": "backbone", "attention": "bidirectional"}
    values["inputs"] = {"text": {"modality": "text", "encoder": shared}}
    values["tasks"]["masked"] = {"type": "masked_lm", "data": values["tasks"]["language"]["data"]}
    weights = {"language": {"until": 6}, "masked": {"from": 6}}
    values["train"] |= {"task_weights": weights, "schedule": {"type": "constant"}}
    values["train"] |= {"warmup_ratio": 0.0, "checkpoint": {"every": 6}}
    train(parse_recipe(values), tmp_path / "run", show=False)
    lines = [line for line in read_metrics(tmp_path / "run") if "loss" in line]
    assert [line["task"] for line in lines] == ["language"] * 6 + ["masked"] * 6
    assert len({line["lr"] for line in lines}) == 1
    steps = {
        path.name: {float(v) for k, v in load_file(path).items() if k.endswith("step")}
        for path in sorted((tmp_path / "run").rglob("*optimizer*.safetensors"))
    }
    assert any(12.0 in counts for counts in steps.values()), steps
