"""Papers that are a recipe of parts that are tested elsewhere: the recipe itself, at toy size."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from sensorium.backbones.causal import Causal
from sensorium.connectors.resampler import Resampler
from sensorium.engine.checkpoint import load_model
from sensorium.engine.data import load_split
from sensorium.engine.evaluation import evaluate
from sensorium.engine.model import build
from sensorium.engine.model.parameters import is_frozen
from sensorium.engine.recipe import parse_recipe, stage_recipes
from sensorium.engine.utils import read_metrics
from sensorium.modalities.text.tokenizers import Bytes
from sensorium.modalities.text.transformers import TransformersText

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
}
OPT = {"model_type": "opt", **TINY, "ffn_dim": 16, "word_embed_proj_dim": 16}
LLAMA = {"model_type": "llama", **TINY, "intermediate_size": 16, "num_key_value_heads": 2}
T5 = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
PAIR = {"type": "seq2seq", "name": "tiny-t5", "tokenizer": "bytes", "weights": "none"}


def decoder(config: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"type": "causal", "config": config, "tokenizer": "bytes", "weights": "none", **keys}


def write_rows(runner: Any, rows: list[dict[str, Any]]) -> str:
    path = runner.folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


MOLECULES = [
    {"task": f"task {i % 3}", "instruction": "Say it again.", "input": text, "output": text}
    for i, text in enumerate(["CCO", "C=O", "CN", "CC", "OCC", "NC", "CO", "O=C", "OC"])
]


def test_instructions_of_tasks_never_trained_on(runner: Any) -> None:
    """Natural Instructions: whole tasks are held out. Small language models for sequences: OPT is
    tuned on pairs of SMILES strings and scored by exact match."""
    path = write_rows(runner, MOLECULES)
    rows = {"source": "json", "path": path, "holdout": {"share": 0.34, "by": "task"}}
    task = {
        "type": "captioning",
        "prompt": "{instruction} {input}",
        "target": " {output}",
        "max_new_tokens": 4,
        "data": {"train": rows},
    }
    train = {"steps": 4, "batch_size": 4, "log_every": 1, "validate": {"every": 4}}
    train["validate"]["metric"] = "instruct/exact_match"
    recipe = {"inputs": {}, "backbone": decoder(OPT), "tasks": {"instruct": task}, "train": train}
    runner.train(recipe, "run")
    assert "exact_match" in str(read_metrics(runner.folder / "run")[-1])
    plan = load_model(runner.folder / "run").plan
    sides = [load_split(plan, "instruct", split) for split in ("train", "validation")]
    names = [{side[i]["task"] for i in range(len(side))} for side in sides]
    assert [len(tasks) for tasks in names] == [2, 1] and not names[0] & names[1]


def test_instructions_train_adapters_alone(runner: Any) -> None:
    """Flacuna: a Llama is tuned with LoRA on a mixture of instructions."""
    data = {"train": {"source": "json", "path": write_rows(runner, MOLECULES)}}
    task = {"type": "captioning", "prompt": "{instruction} {input}", "target": " {output}"}
    recipe = {
        "inputs": {},
        "backbone": decoder(LLAMA, lora={"r": 2}),
        "tasks": {"instruct": {**task, "data": data}},
        "train": {"steps": 2, "batch_size": 4, "log_every": 1},
    }
    before = build(parse_recipe(recipe)).state_dict()
    after = runner.train(recipe, "run").state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved and all("lora_" in name for name in moved)


def test_a_question_may_be_read_twice() -> None:
    """Re-Reading: the template names a column as often as it likes."""
    task = {"type": "captioning", "prompt": "Q: {q} Read it again: {q} A:", "target": " {a}"}
    recipe = parse_recipe({"inputs": {}, "backbone": decoder(LLAMA), "tasks": {"ask": task}})
    planned = build(recipe).plan.tasks["ask"].task
    assert set(planned.columns()) == {"q", "a"}
    assert "".join(planned.prompt.render({"q": "2+2?"})).count("2+2?") == 2


@pytest.mark.slow
def test_text_out_tasks_share_an_image_encoder_and_an_encoder_decoder(runner: Any) -> None:
    """Image-language mixture: captions, completion and questions, each with its share and loss."""
    data = {"train": {"source": "digits", "split": "train", "limit": 24}}
    prompts = {
        "caption": ("<image> Describe:", "{caption}"),
        "complete": ("<image> {word} is", "{parity}"),
        "question": ("<image> Odd or even?", "{parity}"),
    }
    tasks = {
        name: {"type": "captioning", "prompt": prompt, "target": target, "data": data}
        for name, (prompt, target) in prompts.items()
    }
    image = {"modality": "image", "encoder": {"type": "tiny_parts:Tiny"}, "connector": "linear"}
    weights = {"caption": 2.0, "complete": 1.0, "question": 1.0}
    train = {"steps": 16, "batch_size": 2, "log_every": 1, "task_weights": weights}
    recipe = {"inputs": {"image": image}, "backbone": PAIR, "tasks": tasks, "train": train}
    model = runner.train(recipe, "run")
    assert {task for _, task, _ in runner.losses("run")} == set(prompts)
    assert all(loss > 0 for *_, loss in runner.losses("run"))
    assert list(model.streams) == ["image"] and list(model.decoders) == ["backbone"]


@pytest.mark.parametrize("labels", ["word", "marks"])
def test_one_query_reads_an_encoder_of_t5(runner: Any, labels: str) -> None:
    """EncT5: learned queries attend once to the encoder's states; one label or several."""
    rows = [
        {"text": f"number {i}", "word": str(i % 2), "marks": ["a", "b"][: i % 3]} for i in range(12)
    ]
    text = {
        "modality": "text",
        "encoder": {"type": "transformers", "config": T5, "tokenizer": "bytes", "max_length": 32},
        "connector": {"type": "resampler", "queries": 1, "depth": 1, "heads": 2},
    }
    task = {
        "type": "classification",
        "input": "text",
        "target": labels,
        "multi_label": labels == "marks",
        "data": {"train": {"source": "json", "path": write_rows(runner, rows)}},
    }
    recipe = {
        "inputs": {"text": text},
        "tasks": {"label": task},
        "train": {"steps": 2, "batch_size": 4, "log_every": 1},
    }
    model = runner.train(recipe, "run")
    connector = model.stream("text").connector
    assert isinstance(connector, Resampler)
    features = model.stream("text").encoder.collate(
        [model.stream("text").encoder.processor.prepare("one two")]
    )
    assert connector(model.stream("text").encoder(**features)).tokens.shape[1] == 1


def test_eight_thousand_tokens_of_text() -> None:
    """EuroBERT reads 8192 tokens."""
    config = {"model_type": "eurobert", **TINY, "intermediate_size": 16, "num_key_value_heads": 2}
    config |= {"max_position_embeddings": 8192, "pad_token_id": 0, "mask_token_id": 3}
    config |= {"bos_token_id": 2, "eos_token_id": 1}
    with torch.device("meta"):
        encoder = TransformersText(config=config, tokenizer=Bytes(), max_length=8192)
        ids = torch.zeros(1, 8192, dtype=torch.long)
        assert encoder(ids=ids, mask=ids == 0).tokens.shape == (1, 8192, 16)
    with pytest.warns(UserWarning, match="longer than max_length 8192"):
        sample = encoder.processor.prepare("ab" * 5000)
    assert sample["ids"].shape == (8192,)


def test_biases_of_a_decoder_are_a_thousandth_of_it() -> None:
    """Udever: bias-only tuning of BLOOM, 0.56 billion parameters, changes under 0.1 %."""
    config = {"model_type": "bloom", "hidden_size": 1024, "n_layer": 24, "n_head": 16}
    with torch.device("meta"):
        model = Causal(tokenizer=Bytes(), config={**config, "vocab_size": 250880}, attn="eager")
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    biases = sum(count for name, count in sizes.items() if name.endswith("bias"))
    assert 0 < biases < 1e-3 * sum(sizes.values())


def test_sound_like_signals_align_with_a_causal_language_model(runner: Any) -> None:
    """MS-CLAP: the text tower is a causal model, read at its last token; recalls both ways and
    zero-shot classes are reported."""
    text = {
        "modality": "text",
        "encoder": {"type": "causal_lm", "config": LLAMA, "tokenizer": "bytes", "max_length": 64},
        "connector": "cls",
    }
    image = {"modality": "image", "encoder": {"type": "tiny_parts:Tiny"}, "connector": "mean"}
    task = {
        "type": "contrastive",
        "streams": ["image", "caption"],
        "zero_shot": {"input": "image", "target": "word", "templates": ["a digit {}"]},
        "dim": 8,
        "data": {
            "train": {"source": "digits", "split": "train", "limit": 24},
            "test": {"source": "digits", "split": "test", "limit": 12},
        },
    }
    recipe = {"inputs": {"image": image, "caption": text}, "tasks": {"match": task}}
    recipe["train"] = {"steps": 2, "batch_size": 8, "log_every": 1}
    model = runner.train(recipe, "run")
    scores = evaluate(model, split="test", input_ablation=False)["match"]
    assert {"image_to_caption_recall@1", "caption_to_image_recall@1"} <= set(scores)
    assert "zero_shot_accuracy" in scores
    assert not is_frozen(model.stream("caption").encoder)


def test_a_lone_linear_map_learns_captions(runner: Any) -> None:
    """LiMBeR: one linear layer from a frozen image encoder to soft prompts of a frozen decoder."""
    data = {"train": {"source": "digits", "split": "train", "limit": 24}}
    image = {
        "modality": "image",
        "encoder": {"type": "tiny_parts:Tiny", "freeze": True},
        "connector": "linear",
    }
    task = {"type": "captioning", "prompt": "<image> It is:", "target": " {word}", "data": data}
    recipe = {
        "inputs": {"image": image},
        "backbone": decoder({**LLAMA, "initializer_range": 0.5}, freeze=True),
        "tasks": {"caption": task},
        "train": {"steps": 40, "batch_size": 12, "optimizer": {"lr": 0.1}, "log_every": 1},
    }
    before = build(parse_recipe(recipe)).state_dict()
    model = runner.train(recipe, "run")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(name.startswith("streams.image.connector.") for name in trained)
    after = model.state_dict()
    assert {n for n in after if not torch.equal(after[n], before[n])} == trained
    losses = [loss for _, _, loss in runner.losses("run")]
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


def test_in_batch_negatives_end_with_the_first_stage(runner: Any) -> None:
    """NV-Embed: latent attention pools an encoder; the second stage has hard negatives alone."""
    rows = [{"query": f"q {i}", "passage": f"p {i}", "wrong": f"w {i}"} for i in range(8)]
    pooled = {"type": "latent_attention", "latents": 4, "heads": 2}
    bert = {"model_type": "bert", **TINY, "intermediate_size": 16}
    text = {"type": "transformers", "config": bert, "tokenizer": "bytes", "max_length": 16}
    recipe = {
        "inputs": {
            "query": {"modality": "text", "encoder": text, "connector": pooled},
            "passage": {"share": "query"},
            "wrong": {"share": "query"},
        },
        "tasks": {
            "search": {
                "type": "contrastive",
                "streams": ["query", "passage"],
                "hard_negatives": {"passage": ["wrong"]},
                "dim": 8,
                "data": {"train": {"source": "json", "path": write_rows(runner, rows)}},
            }
        },
        "train": {"steps": 2, "batch_size": 4, "log_every": 1},
        "stages": [
            {"name": "retrieval"},
            {"name": "all", "tasks": {"search": {"in_batch_negatives": False}}},
        ],
    }
    first, second = stage_recipes(parse_recipe(recipe))
    options = [stage.recipe.tasks["search"].options for stage in (first, second)]
    assert [each.get("in_batch_negatives", True) for each in options] == [True, False]
    runner.train(recipe, "run")
    steps = [loss for *_, loss in runner.losses("run")]
    assert len(steps) == 4
    assert steps[2] < steps[1]  # one wrong passage a row, where all of the batch were wrong
