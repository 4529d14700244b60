"""Contrastive recipes in training: processes, chunks, locked towers, biases, what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from sensorium.engine.checkpoint import load_model
from sensorium.engine.data import Collator, task_dataset
from sensorium.engine.evaluation import evaluate
from sensorium.engine.inference import load
from sensorium.engine.model import Model, build
from sensorium.engine.model.parameters import is_frozen
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.utils import ConfigError
from sensorium.modalities.image.datasets.digits import Digits
from sensorium.modalities.text.transformers import TransformersText
from sensorium.tasks.batch import Batch

BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
NO_DROPOUT = {"hidden_dropout_prob": None, "attention_probs_dropout_prob": None}
LLAMA = {"type": "causal_lm", "config": {"model_type": "llama", **NO_DROPOUT}}
TEXT = {"type": "transformers", "config": BERT, "tokenizer": "bytes", "max_length": 64}
PAIR: dict[str, Any] = {
    "inputs": {
        "image": {"modality": "image", "encoder": {"type": "tiny_parts:Tiny"}, "connector": "mean"},
        "caption": {"modality": "text", "encoder": TEXT, "connector": "mean"},
    },
    "tasks": {
        "digit": None,
        "match": {
            "type": "contrastive",
            "streams": ["image", "caption"],
            "dim": 12,
            "positive_group": "word",
            "data": {
                "train": {"source": "digits", "split": "train", "limit": 48},
                "test": {"source": "digits", "split": "test", "limit": 30},
            },
        },
    },
    "train": {"steps": 4, "batch_size": 8, "log_every": 1},
}
"""Pictures of digits and their captions, in a space 12 wide."""


def texts(**changes: Any) -> dict[str, Any]:
    return {"inputs": {"caption": {"encoder": changes}}}


def asked(**changes: Any) -> dict[str, Any]:
    return {"tasks": {"match": changes}}


def composed(shop: Any, *changes: Any) -> Model:
    return build(parse_recipe(shop.recipe(PAIR, *changes)))


class Misnamed(Digits):
    """Digits with a text that is not theirs."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = super().__getitem__(index)
        return {**row, "wrong": row["parity"]}


def batch_of(model: Model, rows: int) -> Batch:
    encoders = model.encoders()
    dataset = task_dataset(model.plan, encoders, "match", Misnamed(split="train"))
    return Collator(encoders)("match", [dataset.load(i) for i in range(rows)])


def gradients(model: Model, batch: Batch) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model.zero_grad()
    loss = model(batch)
    (loss.total / loss.count).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


LOSSES: dict[str, dict[str, Any]] = {
    "infonce": {},
    "siglip": asked(loss="siglip"),
    "chunks": asked(gradcache_chunk_size=3),
    "hard negatives": {
        **asked(
            hard_negatives={"caption": ["wrong"]},
            matryoshka=[4],
            data={"train": {"columns": {"wrong": "word"}}, "test": None},
        ),
        "inputs": {"wrong": {"share": "caption"}},
    },
    "soft and taught": {
        **asked(
            loss="soft",
            soft_target_streams={"image": "look"},
            teachers=[{"image": "look", "caption": "said"}],
            data={"train": {"columns": {"look": "image", "said": "caption"}}, "test": None},
        ),
        "inputs": {
            "look": {"modality": "image", "encoder": {"type": "tiny_parts:Tiny", "freeze": True}},
            "said": {
                "modality": "text",
                "encoder": {**TEXT, "config": {**BERT, "hidden_size": 8}, "freeze": True},
            },
        },
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_two_processes_are_one_with_twice_the_batch(shop: Any, loss: str) -> None:
    shop.train(shop.recipe(PAIR, LOSSES[loss], {"train": {"batch_size": 16}}), "one")
    done = shop.go(shop.recipe(PAIR, LOSSES[loss]), "two", processes=2)
    assert done.returncode == 0, done.stderr
    result, expected = ([loss for *_, loss in shop.losses(name)] for name in ("two", "one"))
    assert result == pytest.approx(expected, abs=1e-5)
    mine, theirs = (load_model(shop.folder / name).state_dict() for name in ("one", "two"))
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=2e-5, msg=name)


@pytest.mark.slow
def test_a_process_without_a_readable_row_goes_along(shop: Any) -> None:
    """The second process's rows of the first batch are broken: nobody waits for it."""
    lines = []
    for i in range(16):
        row = Digits(split="train")[i]
        (shop.folder / f"{i}.png").write_bytes(b"")
        if i < 8:
            Image.fromarray(row["image"]).save(shop.folder / f"{i}.png")
        lines.append({**row, "image": f"{i}.png", "label": int(row["label"])})
    (shop.folder / "rows.json").write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    data = {"source": "json", "path": "rows.json", "on_error": "skip"}
    few = {"train": {"steps": 6, "batch_size": 1, "gradient_accumulation_steps": 2}}
    recipe = shop.recipe(PAIR, asked(data=None), asked(data={"train": data}), few)
    done = shop.go(recipe, "two", processes=2)
    assert done.returncode == 0, done.stderr
    assert len(shop.losses("two")) == 6


def test_hard_negatives_share_a_tower_and_its_chunks(shop: Any) -> None:
    """Their gradient reaches the shared weights, and chunks leave it as it is."""
    hard = LOSSES["hard negatives"]
    whole, chunks = (composed(shop, hard, asked(gradcache_chunk_size=rows)) for rows in (None, 3))
    batch = batch_of(whole, 8)
    expected, result = gradients(whole, batch), gradients(chunks, batch)
    plain = gradients(composed(shop, asked(matryoshka=[4])), batch)
    assert expected.keys() == result.keys() == plain.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(result[name], grad, rtol=1e-4, atol=1e-6, msg=name)
    assert any(not torch.allclose(grad, plain[name]) for name, grad in expected.items())


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_chunks_give_the_gradients_of_the_whole_batch(shop: Any, rows: int) -> None:
    """Dropout included: what is computed again has the random numbers of the first time."""
    noisy = {"inputs": {"image": {"encoder": {"dropout": 0.3}}}}
    model = composed(shop, noisy, asked(gradcache_chunk_size=rows))
    batch = batch_of(model, 8)
    drawn: list[Tensor] = []
    handle = (
        model.stream("image")
        .encoder.layers[0]
        .dropout.register_forward_hook(lambda module, args, out: drawn.append(out != 0))
    )
    first = gradients(model, batch)
    handle.remove()
    remaining, count = [mask.flatten().tolist() for mask in drawn], -(-8 // rows)
    if count > 1:  # each chunk ran twice, and dropped the same
        assert len(remaining) == 2 * count
        assert sorted(remaining[count:]) == sorted(remaining[:count])
    second = gradients(model, batch)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_chunks_without_dropout_change_nothing(shop: Any, rows: int) -> None:
    chunked, whole = composed(shop, asked(gradcache_chunk_size=rows)), composed(shop)
    batch = batch_of(whole, 8)
    result, expected = gradients(chunked, batch), gradients(whole, batch)
    assert result.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(result[name], expected[name], rtol=0, atol=1e-5, msg=name)


def test_chunks_keep_less_for_the_backward(shop: Any) -> None:
    """The bytes that autograd holds at the end of the forward."""

    def held(model: Model, batch: Batch) -> int:
        own = {p.data_ptr() for p in model.parameters()}
        remaining: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in own:
                remaining[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(batch)
        return sum(remaining.values())

    whole, chunked = composed(shop), composed(shop, asked(gradcache_chunk_size=4))
    batch = batch_of(whole, 32)
    assert held(chunked, batch) < held(whole, batch) / 5


def test_chunks_and_batch_norms_do_not_go_together(shop: Any) -> None:
    model = composed(
        shop, asked(gradcache_chunk_size=2), {"inputs": {"image": {"encoder": {"norm": True}}}}
    )
    with pytest.raises(ValueError, match="chunk: the stream has batch norms that train"):
        model(batch_of(model, 4))


def test_a_locked_tower_is_not_run(shop: Any, forbid: Callable[[Any, str], None]) -> None:
    """LiT: the text tower is frozen, so its features come from the store."""
    recipe = shop.recipe(PAIR, texts(freeze=True))
    shop.train(recipe, "first")
    forbid(TransformersText, "forward")
    again = shop.train(recipe, "again")
    assert shop.losses("again") == shop.losses("first")
    assert is_frozen(again.stream("caption").encoder)
    assert again.stream("caption").connector.map.weight.requires_grad


def test_only_biases_train(shop: Any) -> None:
    before = dict(composed(shop, texts(train_only="bias")).named_parameters())
    encoder = "streams.caption.encoder."
    for name, parameter in before.items():
        expected = not name.startswith(encoder) or name.endswith("bias")
        assert parameter.requires_grad == expected, name
    trained = shop.train(shop.recipe(PAIR, texts(train_only="bias")), "run")
    moved = {n for n, p in trained.named_parameters() if not torch.equal(p, before[n])}
    assert {name.split(".")[1] for name in moved if "encoder" in name} == {"image", "caption"}
    assert all(n.endswith("bias") for n in moved if n.startswith(encoder))
    again = load_model(shop.folder / "run").state_dict()
    assert all(torch.equal(again[n], t) for n, t in trained.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"freeze": True}, r"encoder.train_only: stands beside freeze"),
        ({"lora": {"r": 2}}, r"encoder.train_only: stands beside lora"),
        (LLAMA, r"encoder.train_only: bias selects no parameter"),
    ],
)
def test_biases_that_cannot_train_are_refused(
    shop: Any, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        composed(shop, texts(**changes, train_only="bias"))


def test_widths_that_do_not_meet_are_refused(shop: Any) -> None:
    recipe = shop.recipe(PAIR)
    del recipe["inputs"]["image"]["connector"]
    with pytest.raises(ConfigError, match=r"inputs.image.*width 8, tasks.match.dim takes 12"):
        build(parse_recipe(recipe))


def test_teachers_and_looks_may_have_any_width(shop: Any) -> None:
    data = {"columns": {"look": "image", "seen": "image", "said": "caption"}}
    image = {"modality": "image", "encoder": {"type": "tiny_parts:Tiny", "freeze": True}}
    said = {"modality": "text", "encoder": {**TEXT, "freeze": True}}
    recipe = shop.recipe(
        PAIR,
        {"inputs": {"look": image, "seen": image, "said": said}},
        asked(
            loss="soft", soft_target_streams={"image": "look"}, data={"train": data, "test": data}
        ),
        asked(teachers=[{"image": "seen", "caption": "said"}]),
    )
    recipe["inputs"]["said"]["encoder"]["config"] = {**BERT, "hidden_size": 8}
    shop.train(recipe, "run")
    lines = (shop.folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line)["teachers"] > 0 for line in lines if '"loss"' in line)


def test_an_evaluation_says_ranks_and_accuracy(shop: Any) -> None:
    zero_shot = {"input": "image", "target": "word", "templates": ["a handwritten {}.", "{}"]}
    recipe = shop.recipe(PAIR, asked(zero_shot=zero_shot, metric_group="parity"))
    model = shop.train(recipe, "run")
    result = evaluate(model, folder=shop.folder / "run")["match"]
    assert result["zero_shot_chance"] == pytest.approx(0.1)
    assert 0 <= result["zero_shot_accuracy"] <= 1
    assert result["image_to_caption_chance@1_same_parity"] > result["image_to_caption_chance@1"]
    assert result["batch_gap"] < 1e-5
    assert "recall@1_image_shuffled" in result
    lines = (shop.folder / "run" / "predictions-match.jsonl").read_text()
    rows = [json.loads(line) for line in lines.splitlines()]
    assert len(rows) == 30
    keys = {row["key"] for row in rows}
    for row in rows:
        said = row["prediction"]["image_to_caption"]
        assert said["first"] in keys and 1 <= said["rank"] <= 30


def test_one_by_one_or_together_and_whatever_pads(shop: Any) -> None:
    shop.train(shop.recipe(PAIR), "run")
    pipeline = load(shop.folder / "run")
    rows = [Digits(split="test")[i] for i in range(64)]
    captions = [row["caption"] if i % 3 else row["word"] for i, row in enumerate(rows)]
    for name, values in (("image", [row["image"] for row in rows]), ("caption", captions)):
        together = pipeline.embed(**{name: values})
        alone = torch.cat([pipeline.embed(**{name: [value]}) for value in values])
        assert float((together - alone).abs().max()) < 1e-5
        torch.testing.assert_close(together.norm(dim=1), torch.ones(64))
