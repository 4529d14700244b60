"""Streams whose cells are lists: two-level encoders of dialogues, bags of pictures of cells."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.engine.embedding.embedder import Embedder
from sensorium.engine.evaluation import evaluate
from sensorium.engine.inference import Pipeline
from sensorium.engine.model import build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check
from sensorium.engine.utils import ConfigError

BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
TEXT = {"type": "transformers", "config": BERT, "tokenizer": "bytes", "max_length": 40}


def split(runner: Any, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    path = runner.folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"source": "json", "path": str(path)}


def dialogues(count: int, seed: int) -> list[dict[str, Any]]:
    """Turns with their acts. A turn `yes` answers the question before it, or greets back: the act
    lies in the turn before alone."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        turns, acts = [], []
        for _ in range(int(rng.integers(1, 4))):
            asks = bool(rng.random() < 0.5)
            turns += ["is it?" if asks else "hello", "yes"]
            acts += ["question", "answer"] if asks else ["greeting", "echo"]
        rows.append({"turns": turns, "acts": acts})
    return rows


def two_levels(over: Any) -> dict[str, Any]:
    connector = {"type": "bag", "item": "mean", "over": over}
    return {"modality": "text", "encoder": TEXT, "connector": connector}


TRANSFORMER = {"type": "transformer", "depth": 1, "heads": 2}


def tagging(runner: Any, over: Any, steps: int = 60) -> dict[str, Any]:
    data = {n: split(runner, n, dialogues(48, i)) for i, n in enumerate(("train", "test"))}
    task = {"type": "tagging", "input": "turns", "target": "acts", "data": data}
    return {
        "inputs": {"turns": two_levels(over)},
        "tasks": {"acts": task},
        "train": {"steps": steps, "batch_size": 16, "optimizer": {"lr": 0.01}, "log_every": 1},
    }


@pytest.mark.slow
def test_a_two_level_encoder_labels_the_turns_of_a_dialogue(runner: Any) -> None:
    """The act of a turn is known by the turn before it: without the second level, as control, an
    answer and an echo are one."""
    model = runner.train(tagging(runner, TRANSFORMER), "two")
    found = evaluate(model, input_ablation=False)["acts"]["accuracy"]
    control = runner.train(tagging(runner, "linear"), "one")
    assert evaluate(control, input_ablation=False)["acts"]["accuracy"] < 0.85 < 0.9 < found
    answer = Pipeline(model).tag(turns=["is it?", "yes", "hello", "yes"])
    assert answer["tags"] == ["question", "answer", "greeting", "echo"]


@pytest.mark.slow
def test_a_masked_turn_is_written_from_its_dialogue(runner: Any) -> None:
    """The turn that a mask hides is rebuilt by a decoder from the dialogue's level; as control the
    hidden turns belong to other dialogues."""
    losses = {}
    for name in ("masked", "wrong"):
        rows = []
        for row in dialogues(64, 0):
            place = 2 * (len(row["turns"]) // 4)  # a question is hidden, the acts tell which
            marks = [f"{act} {turn}" for act, turn in zip(row["acts"], row["turns"], strict=True)]
            rows.append({"turns": [*marks[:place], "***", *marks[place + 1 :]],
                         "hidden": row["turns"][place]})  # fmt: skip
        if name == "wrong":
            hidden = np.random.default_rng(1).permutation([row["hidden"] for row in rows])
            rows = [{**row, "hidden": str(h)} for row, h in zip(rows, hidden, strict=True)]
        decoder = {"type": "causal", "name": "tiny-llama", "tokenizer": "bytes", "weights": "none"}
        decoder["options"] = {"hidden_size": 32, "num_hidden_layers": 1}
        values = {
            "inputs": {"turns": two_levels(TRANSFORMER)},
            "backbone": decoder,
            "tasks": {
                "rebuild": {
                    "type": "captioning",
                    "prompt": "<turns>",
                    "target": "{hidden}",
                    "data": {"train": split(runner, name, rows)},
                }
            },
            "train": {"steps": 60, "batch_size": 16, "optimizer": {"lr": 0.01}, "log_every": 1},
        }
        runner.train(values, name)
        losses[name] = [loss for *_, loss in runner.losses(name)]
    assert np.mean(losses["masked"][-10:]) < 0.5 * np.mean(losses["masked"][:10])
    assert np.mean(losses["masked"][-10:]) < 0.8 * np.mean(losses["wrong"][-10:])


WELLS = '''
import numpy as np
from sensorium.modalities.base import Source

class Wells(Source):
    """Wells of cells with three stains, the frames of a clip; a treatment lights one of them up in
    most cells. shuffled: the words belong to other wells."""

    columns = ("cells", "treatment")

    def __init__(self, *, seed: int, shuffled: bool = False) -> None:
        rng = np.random.default_rng(seed)
        kinds = np.arange(36) % 3
        counts = rng.integers(2, 6, 36)
        self.cells = [[self.stained(rng, k) for _ in range(n)] for k, n in zip(kinds, counts)]
        self.words = rng.permutation(kinds) if shuffled else kinds
        self.name = f"wells {seed} {shuffled}"

    def stained(self, rng, kind):
        stains = rng.integers(0, 90, (3, 8, 8, 3), dtype=np.uint8)
        stains[kind] += np.uint8(120 * (rng.random() < 0.9))
        return {"frames": stains, "fps": 1.0}

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index):
        word = ("taxol", "water", "nocodazole")[self.words[index]]
        return {"cells": self.cells[index], "treatment": word}

    def fingerprint(self) -> str:
        return self.name
'''


@pytest.mark.slow
def test_bags_of_cells_find_their_treatment(runner: Any) -> None:
    """Frozen pictures of each stain, pooled over cells by gates, a transformer over the stains, and
    a contrast with words. As control the words of other wells."""
    (runner.folder / "wells.py").write_text(WELLS)
    patches = {"type": "patches", "size": 8, "patch_size": 8, "dim": 16}
    encoder = {"type": "frames", "fps": 1.0, "encoder": patches, "freeze": True}
    channels = {"type": "channel_transformer", "channels": 3, "hidden": 8, "depth": 1, "heads": 2}
    cells = {
        "modality": "image",
        "encoder": encoder,
        "connector": {"type": "bag", "over": channels},
    }
    inputs = {
        "cells": cells,
        "treatment": {"modality": "text", "encoder": TEXT, "connector": "mean"},
    }
    found = {}
    for shuffled in (False, True):
        task = {
            "type": "contrastive",
            "streams": ["cells", "treatment"],
            "dim": 16,
            "positive_group": "treatment",
            "data": {
                "train": {"source": "wells:Wells", "seed": 0, "shuffled": shuffled},
                "test": {"source": "wells:Wells", "seed": 1},
            },
        }
        train = {"steps": 120, "batch_size": 18, "optimizer": {"lr": 0.003}, "log_every": 1}
        values = {"inputs": inputs, "tasks": {"match": task}, "train": train}
        model = runner.train(values, f"run{shuffled}")
        measures = evaluate(model, input_ablation=False)["match"]
        found[shuffled] = measures["cells_to_treatment_recall@1"]
    assert found[False] > found[True] + 0.25, found


def test_two_levels_in_every_use(runner: Any) -> None:
    """The dry run, a bag alone and beside others, an empty bag, embeddings; a task that reads items
    itself is refused."""
    values = tagging(runner, TRANSFORMER, steps=2)
    model = build(parse_recipe(values)).eval()
    assert check(parse_recipe(values)).components
    pipeline = Pipeline(model)
    turns = [["a b", "yes"], ["hello"], ["is it?", "yes", "a longer turn"]]
    together = pipeline.generate("acts", turns=turns)
    assert [len(answer["tags"]) for answer in together] == [2, 1, 3]
    for cell, answer in zip(turns, together, strict=True):
        alone = pipeline.generate("acts", turns=cell)
        assert alone["scores"] == pytest.approx(answer["scores"], abs=1e-5)
    vectors = pipeline.embed(turns=turns)
    assert vectors.shape == (3, 32)
    embedded = torch.tensor(Embedder(model, "turns").query(turns[2]))[0]
    torch.testing.assert_close(embedded, vectors[2].cpu(), rtol=1e-4, atol=1e-5)
    values["inputs"]["turns"]["connector"]["over"] = "mean"
    values["inputs"] |= {name: {"share": "turns"} for name in ("other", "wrong")}
    contrast = {"streams": ["turns", "other"], "dim": 32, "hard_negatives": {"other": "wrong"}}
    values["tasks"] = {"search": {"type": "contrastive", **contrast}}
    with pytest.raises(ConfigError, match=r"inputs\.wrong\.connector: joins the items of a row"):
        build(parse_recipe(values))
