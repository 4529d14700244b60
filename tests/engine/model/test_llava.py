"""A recipe against transformers' `LlavaForConditionalGeneration`, on the same weights.

LLaVA-1.5 (Liu et al. 2023) is written as a recipe: a CLIP tower read at a hidden layer, a
projector of two layers, a llama. Everything goes through the engine: files on disk, the
plan, the loader, the task. Legend: `B` rows, `N` tokens of all targets.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from sensorium.engine.data import Collator, batches, load_split, sequential_batches, task_dataset
from sensorium.engine.model import Model, compose, resolve_and_fit
from sensorium.engine.recipe import parse_recipe
from sensorium.tasks.batch import Batch

WORDS = ["<pad>", "<bos>", "<eos>", *(f"w{i}" for i in range(36)), "<picture>"]
PAD, BOS, EOS, PICTURE = 0, 1, 2, len(WORDS) - 1
SIDE, PATCHES = 16, 4
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
QUESTIONS = ["w3", "w7 w8 w9", "w4 w5"]
ANSWERS = ["w10 w11 w12", "w13", "w14 w15 w16 w17 w18"]


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)) for _ in QUESTIONS]


@pytest.fixture(params=[-2, -1])
def llava(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    text = LlamaConfig(
        **TEXT, vocab_size=len(WORDS), num_attention_heads=4, pad_token_id=PAD,
        bos_token_id=BOS, eos_token_id=EOS,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
        image_size=SIDE, patch_size=SIDE // 2,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=PICTURE,
        image_seq_length=PATCHES, vision_feature_layer=request.param,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    for parameter in model.parameters():  # as drawn they are so small that all logits are alike
        nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 0.1)
    return model


@pytest.fixture
def folder(llava: Any, tmp_path: Path) -> Path:
    """LLaVA's parts in the formats that people have them in, and three rows of data."""
    tower, decoder = tmp_path / "tower", tmp_path / "decoder"
    llava.model.vision_tower.save_pretrained(tower)
    sides = {"height": SIDE, "width": SIDE}
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=sides).save_pretrained(tower)
    language = LlamaForCausalLM(llava.config.text_config)
    language.model.load_state_dict(llava.model.language_model.state_dict())
    language.lm_head.load_state_dict(llava.lm_head.state_dict())
    language.save_pretrained(decoder)
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}))
    backend.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(decoder)
    lines = ["picture,question,caption"]
    for i, picture in enumerate(pictures()):
        picture.save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{QUESTIONS[i]},{ANSWERS[i]}")
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    return tmp_path


def recipe(folder: Path, layer: int) -> dict[str, Any]:
    data = {
        "source": "csv", "path": str(folder / "rows.csv"), "paths": ["picture"],
        "columns": {"image": "picture"},
    }  # fmt: skip
    return {
        "inputs": {
            "image": {
                "modality": "image",
                "encoder": {"type": "transformers", "name": str(folder / "tower"), "layer": layer},
                "connector": "mlp",
            }
        },
        "backbone": {"type": "causal", "name": str(folder / "decoder"), "tokenizer": "pretrained"},
        "tasks": {
            "answer": {
                "type": "captioning",
                "prompt": "w1 w2 <image> {question} w6",
                "max_new_tokens": 8,
                "data": {"train": data},
            }
        },
    }


@pytest.fixture
def ours(llava: Any, folder: Path) -> Model:
    model = compose(
        resolve_and_fit(parse_recipe(recipe(folder, llava.config.vision_feature_layer)))
    ).eval()
    projector, connector = llava.model.multi_modal_projector, model.stream("image").connector
    for module, expected in zip(
        [m for m in connector.modules() if isinstance(m, nn.Linear)],  # type: ignore[union-attr]
        [projector.linear_1, projector.linear_2],
        strict=True,
    ):
        module.load_state_dict(expected.state_dict())
    return model


@pytest.fixture
def batch(ours: Model) -> Batch:
    source = load_split(ours.plan, "answer", "train")
    rows = task_dataset(ours.plan, ours.encoders(), "answer", source)
    [result] = batches({"answer": rows}, sequential_batches(rows, 3), Collator(ours.encoders()))
    assert not result.failed
    return result


def ids(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


def prompts() -> list[list[int]]:
    return [
        [BOS, *ids("w1 w2"), *[PICTURE] * PATCHES, *ids(question), *ids("w6")]
        for question in QUESTIONS
    ]


def padded(rows: list[list[int]], value: int, left: bool = False) -> Tensor:
    longest = max(map(len, rows))
    fills = [[value] * (longest - len(row)) for row in rows]
    return torch.tensor([f + r if left else r + f for f, r in zip(fills, rows, strict=True)])


def pixels(folder: Path) -> Tensor:
    """As transformers' own processor has them, from the pictures and not from our loader."""
    processor = CLIPImageProcessor.from_pretrained(folder / "tower")
    result: Tensor = processor(images=pictures(), return_tensors="pt")["pixel_values"]
    return result


def spied(model: Model, name: str, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What a method of the decoder gives from now on."""
    seen: list[Tensor] = []
    method = getattr(model.backbone, name)

    def spy(*args: Any, **options: Any) -> Tensor:
        seen.append(method(*args, **options))
        return seen[-1]

    monkeypatch.setattr(model.backbone, name, spy)
    return seen


@torch.no_grad()
def test_logits_and_loss_of_a_recipe_are_llavas(
    llava: Any, folder: Path, ours: Model, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [[*ids(answer), EOS] for answer in ANSWERS]
    whole = [p + a for p, a in zip(prompts(), answers, strict=True)]
    labels = [[-100] * len(p) + a for p, a in zip(prompts(), answers, strict=True)]
    expected = llava(
        input_ids=padded(whole, PAD),
        attention_mask=padded([[1] * len(row) for row in whole], 0),
        pixel_values=pixels(folder),
        labels=padded(labels, -100),
    )
    targets = padded(labels, -100)[:, 1:] != -100

    seen = spied(ours, "logits", monkeypatch)
    loss = ours(batch)
    assert int(loss.count) == sum(map(len, answers))
    assert expected.logits.std() > 0.1  # not all alike
    torch.testing.assert_close(seen[0], expected.logits[:, :-1][targets], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loss.total / loss.count, expected.loss, rtol=1e-5, atol=1e-5)


def test_gradients_of_a_recipe_are_llavas(
    llava: Any, folder: Path, ours: Model, batch: Batch
) -> None:
    whole = [[*p, *ids(a), EOS] for p, a in zip(prompts(), ANSWERS, strict=True)]
    labels = [[-100] * len(p) + w[len(p) :] for p, w in zip(prompts(), whole, strict=True)]
    llava(
        input_ids=padded(whole, PAD),
        attention_mask=padded([[1] * len(row) for row in whole], 0),
        pixel_values=pixels(folder),
        labels=padded(labels, -100),
    ).loss.backward()
    loss = ours(batch)
    (loss.total / loss.count).backward()
    backbone: Any = ours.backbone
    pairs = [
        (ours.stream("image").encoder.model, llava.model.vision_tower),  # type: ignore[attr-defined]
        (backbone.model.model, llava.model.language_model),
        (backbone.model.lm_head, llava.lm_head),
    ]
    checked = 0
    for module, other in pairs:
        other_parameters = dict(other.named_parameters())
        for name, parameter in module.named_parameters():
            if parameter.grad is None or other_parameters[name].grad is None:
                assert parameter.grad is other_parameters[name].grad, (
                    name
                )  # not run by either of them
                continue
            checked += bool(parameter.grad.abs().max() > 0)
            torch.testing.assert_close(
                parameter.grad, other_parameters[name].grad, rtol=1e-3, atol=1e-5
            )
    assert checked > 30


@torch.no_grad()
def test_greedy_tokens_of_a_recipe_are_llavas(
    llava: Any, folder: Path, ours: Model, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = prompts()
    expected = llava.generate(
        input_ids=padded(rows, PAD, left=True),
        attention_mask=padded([[1] * len(row) for row in rows], 0, left=True),
        pixel_values=pixels(folder),
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )[:, max(map(len, rows)) :]
    seen = spied(ours, "generate", monkeypatch)
    built = ours.predict(batch)
    assert torch.equal(seen[0], expected)
    assert len(expected.unique(dim=0)) > 1  # what is said depends on what is shown
    for row, one in zip(expected.tolist(), built, strict=True):
        remaining = row[: row.index(EOS)] if EOS in row else row
        assert one["text"] == " ".join(WORDS[i] for i in remaining if i > EOS)
