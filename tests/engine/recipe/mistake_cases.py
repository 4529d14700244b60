"""A recipe, and mistakes in its keys, values and names with the message of each."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import yaml

from sensorium import __main__ as entry

BASE: dict[str, Any] = yaml.safe_load("""
inputs:
  image:
    modality: image
    encoder: {type: patches, size: 8, patch_size: 4, dim: 16}
    connector: {type: mlp}
backbone:
  type: causal
  name: tiny-llama
  tokenizer: bytes
  weights: none
  options: {hidden_size: 32, intermediate_size: 32, num_hidden_layers: 1}
tasks:
  caption:
    type: captioning
    prompt: "<image> Describe:"
    target: "{word}"
    max_new_tokens: 4
    data:
      train: {source: digits, split: train, limit: 12, holdout: 0.25}
      test: {source: digits, split: test, limit: 4}
train: {steps: 1, batch_size: 4}
""")


GONE = object()


TIMM = {"type": "timm", "name": "vit_tiny_patch16_224", "weights": "none"}


DIGIT = {"type": "classification", "input": "image", "target": "label"}


DIGITS = {"train": {"source": "digits", "split": "train", "limit": 40}}


ENCODER = "inputs.image.encoder"


CONNECTOR = "inputs.image.connector"


TRAIN = "tasks.caption.data.train"


Case = tuple[dict[str, Any], str, tuple[str, ...]]


MISSPELT: dict[str, Case] = {
    "a head's type": (
        {"tasks.digit": {**DIGIT, "head": {"tpye": "mlp", "hidden": 8}, "data": DIGITS}},
        "tasks.digit.head.type",
        ("is required",),
    ),
    "a head as a list": (
        {"tasks.digit": {**DIGIT, "head": ["mlp"], "data": DIGITS}},
        "tasks.digit.head.type",
        ("['mlp']",),
    ),
    "a recipe's name that is too long": ({"extends": "b" * 300}, "extends", ("name too long",)),
    "a room": ({"inptus": {}}, "inptus", ("did you mean 'inputs'",)),
    "a stream's key": ({"inputs.image.conector": "mlp"}, "inputs.image.conector", ("'connector'",)),
    "an encoder's": ({f"{ENCODER}.patchsize": 4}, f"{ENCODER}.patchsize", ("'patch_size'",)),
    "a connector's": ({f"{CONNECTOR}.hiden": 3}, f"{CONNECTOR}.hiden", ("'hidden'",)),
    "a decoder's": ({"backbone.tokeniser": "bpe"}, "backbone.tokeniser", ("'tokenizer'",)),
    "a configuration's": (
        {"backbone.options.hiden_size": 32},
        "backbone.options.hiden_size",
        ("'hidden_size'",),
    ),
    "a tokenizer's": (
        {"backbone.tokenizer": {"type": "bpe", "sise": 300}},
        "backbone.tokenizer.sise",
        ("'size'",),
    ),
    "a task's": ({"tasks.caption.promt": "x"}, "tasks.caption.promt", ("'prompt'",)),
    "a required one": (
        {"tasks.caption.promt": "<image>", "tasks.caption.prompt": GONE},
        "tasks.caption.promt",
        ("'prompt'",),
    ),
    "a source's": ({f"{TRAIN}.spilt": "train"}, f"{TRAIN}.spilt", ("'split'",)),
    "training's": ({"train.step": 3}, "train.step", ("'steps'",)),
    "validation's": ({"train.validate": {"evry": 3}}, "train.validate.evry", ("'every'",)),
    "train.validate": ({"train.validat": {"every": 3}}, "train.validat", ("'validate'",)),
    "the cache's": ({"cache": {"feature": True}}, "cache.feature", ("'features'",)),
    "an augmentation's": (
        {"inputs.image.augment": {"shfit": 0.1}},
        "inputs.image.augment.shfit",
        ("'shift'",),
    ),
    "freeze's": ({f"{ENCODER}.freeze": {"lst": 1}}, f"{ENCODER}.freeze", ("true | false", "last")),
    "lora's": ({"backbone.lora": {"rank": 8}}, "backbone.lora.rank", ("LoraConfig",)),
    "timm's": (
        {ENCODER: {**TIMM, "options": {"image_size": 32}}},
        f"{ENCODER}.options",
        ("vit_tiny_patch16_224", "image_size"),
    ),
}


VALUES: dict[str, Case] = {
    "a negative count of a decoder": (
        {"backbone.options.num_hidden_layers": -1},
        "backbone.options.num_hidden_layers",
        ("found -1", "0 or more"),
    ),
    "a negative count of an encoder": (
        {ENCODER: {**TIMM, "options": {"depth": -2}}},
        f"{ENCODER}.options.depth",
        ("found -2", "0 or more"),
    ),
    "a negative count within": (
        {ENCODER: {**TIMM, "options": {"a": {"embed_dim": -8}}}},
        f"{ENCODER}.options.a.embed_dim",
        ("found -8",),
    ),
    "text for a number": ({"train.steps": "many"}, "train.steps", ("'many' (str)", "int >= 0")),
    "truth for a number": ({"train.steps": True}, "train.steps", ("True (bool)", "a number")),
    "truth for a width": ({f"{ENCODER}.dim": True}, f"{ENCODER}.dim", ("True (bool)", "number")),
    "truth in a section": (
        {"train.validate": {"every": True}},
        "train.validate.every",
        ("True (bool)", "a number"),
    ),
    "a broken number": ({f"{ENCODER}.dim": 1.5}, f"{ENCODER}.dim", ("1.5 (float)", "int")),
    "text for truth": (
        {f"{CONNECTOR}.norm": "perhaps"},
        f"{CONNECTOR}.norm",
        ("'perhaps'", "true | false"),
    ),
    "none of a choice": (
        {f"{CONNECTOR}.activation": "tanh"},
        f"{CONNECTOR}.activation",
        ("'tanh'", "'gelu' | 'relu' | 'silu'"),
    ),
    "a list for a section": ({"inputs.image": ["image"]}, "inputs.image", ("list", "modality")),
    "text for a section": ({"inputs.image": "timm"}, "inputs.image", ("'timm'", "modality")),
    "text for sections": ({"inputs": "image"}, "inputs", ("'image'", "named sections")),
    "truth for weights": ({f"{ENCODER}.weights": False}, f"{ENCODER}.weights", ("False", "str")),
    "a negative rate": ({"train.optimizer": {"lr": -1}}, "train.optimizer.lr", ("-1", "> 0")),
    "an endless rate": (
        {"train.optimizer": {"lr": float("inf")}},
        "train.optimizer.lr",
        ("inf", "> 0"),
    ),
    "negative steps": ({"train.steps": -1}, "train.steps", ("-1", ">= 0")),
    "a negative depth": ({f"{CONNECTOR}.depth": -1}, CONNECTOR, ("depth", "-1", "> 0")),
    "an empty batch": ({"train.batch_size": 0}, "train.batch_size", ("0", "> 0")),
    "all rows held out": ({f"{TRAIN}.holdout": 1}, f"{TRAIN}.holdout", ("1", ">= 0 and < 1")),
    "no new tokens": (
        {"tasks.caption.max_new_tokens": 0},
        "tasks.caption.max_new_tokens",
        ("0", "> 0"),
    ),
    "a size that does not divide": (
        {f"{ENCODER}.patch_size": 3},
        ENCODER,
        ("size 8", "patch_size 3", "must divide"),
    ),
    "heads that do not divide": (
        {"backbone.options.num_attention_heads": 5},
        "backbone",
        ("(32)", "(5)", "multiple"),
    ),
    "more blocks than there are": (
        {f"{ENCODER}.freeze": {"last": 99}},
        f"{ENCODER}.freeze.last",
        ("99", "1 blocks"),
    ),
    "a rank of nothing": ({"backbone.lora": {"r": 0}}, "backbone.lora", ("positive", "0")),
    "lora on nothing": (
        {"backbone.lora": {"r": 2, "target_modules": ["nothing"]}},
        "backbone.lora",
        ("nothing", "not found"),
    ),
    "a size in words": (
        {ENCODER: {**TIMM, "options": {"img_size": "big"}}},
        f"{ENCODER}.options",
        ("vit_tiny_patch16_224", "'big'"),
    ),
}


NAMES: dict[str, Case] = {
    "a modality": ({"inputs.image.modality": "imge"}, "inputs.image.modality", ("'image'",)),
    "an encoder": ({f"{ENCODER}.type": "tim"}, f"{ENCODER}.type", ("'timm'", "module:Class")),
    "a connector": ({CONNECTOR: "mpl"}, f"{CONNECTOR}.type", ("'mlp'", "module:Class")),
    "a decoder": ({"backbone.type": "casual"}, "backbone.type", ("'causal'",)),
    "a decoder's name": ({"backbone.name": "tiny-lama"}, "backbone.name", ("'tiny-llama'",)),
    "a task": ({"tasks.caption.type": "captionning"}, "tasks.caption.type", ("'captioning'",)),
    "a head": (
        {"tasks.digit": {**DIGIT, "head": "liner", "data": DIGITS}},
        "tasks.digit.head.type",
        ("'linear'",),
    ),
    "a source": ({f"{TRAIN}.source": "digit"}, f"{TRAIN}.source", ("'digits'",)),
    "a tokenizer": ({"backbone.tokenizer": "bep"}, "backbone.tokenizer", ("'bpe'",)),
    "a timm model": ({f"{ENCODER}": {**TIMM, "name": "vit_tinny"}}, ENCODER, ("did you mean",)),
    "an open_clip model": (
        {ENCODER: {"type": "open_clip", "name": "ViT-B-33", "weights": "none"}},
        ENCODER,
        ("ViT-B-32",),
    ),
    "a hub model": (
        {ENCODER: {"type": "timm", "name": "hf-hub:org/model"}},
        f"{ENCODER}.name",
        ("hf-hub:org/model", "connection"),
    ),
    "a bare a/b of timm": (
        {ENCODER: {"type": "timm", "name": "org/model"}},
        ENCODER,
        ("hf-hub:org/model", "local-dir:org/model"),
    ),
    "a split": ({f"{TRAIN}.split": "trian"}, f"{TRAIN}.split", ("'trian'", "'train' | 'test'")),
    "a column": ({"tasks.caption.target": "{wrod}"}, TRAIN, ("'wrod'", "'word'", "columns:")),
    "a mapped column": (
        {f"{TRAIN}.columns": {"word": "wrod"}},
        f"{TRAIN}.columns.word",
        ("'wrod'", "'word'"),
    ),
    "a task of the weights": (
        {"train.task_weights": {"captoin": 1}},
        "train.task_weights.captoin",
        ("'caption'",),
    ),
    "a stream's own": (
        {"inputs.my image": {"modality": "image", "encoder": "patches"}},
        "inputs.my image",
        ("letters, digits", "my_image"),
    ),
    "no module": (
        {f"{ENCODER}.type": "no_such_file:Mine"},
        f"{ENCODER}.type",
        ("'no_such_file'", "current folder"),
    ),
    "no class": (
        {f"{ENCODER}.type": "sensorium.modalities.image.encoders.patches:Patch"},
        f"{ENCODER}.type",
        ("the module has no 'Patch'", "'Patches'"),
    ),
    "a class of another room": (
        {ENCODER: {"type": "sensorium.connectors.projectors:MLP"}},
        f"{ENCODER}.type",
        ("is no image encoder", "sensorium.modalities.base:Encoder"),
    ),
    "a class after a dot": (
        {f"{ENCODER}.type": "my.encoders.Mine"},
        f"{ENCODER}.type",
        ("my.encoders:Mine",),
    ),
}


def edited(edits: dict[str, Any]) -> str:
    values = copy.deepcopy(BASE)
    for path, value in edits.items():
        *parents, last = path.split(".")
        section = values
        for key in parents:
            section = section.setdefault(key, {})
        if value is GONE:
            del section[last]
        else:
            section[last] = value
    text: str = yaml.safe_dump(values, sort_keys=False)
    return text


def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a verb that must end with one line and code 2; the line."""
    monkeypatch.setattr(sys, "argv", ["sensorium", *words])
    with pytest.raises(SystemExit) as end:
        entry.main()
    err = capsys.readouterr().err
    assert end.value.code == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    return err.removeprefix("error: ").rstrip("\n")
