"""A search by attributes: a tagger finds the keywords of a question, towers match them to crops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from sensorium.engine.inference import Pipeline
from sensorium.tests.engine.training.recipes.test_bag_papers import BERT, split

TEXT = {
    "modality": "text",
    "encoder": {
        "type": "transformers",
        "config": {**BERT, "max_position_embeddings": 64},
        "tokenizer": "bytes",
        "max_length": 64,
    },
}
COLOURS = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (40, 70, 210)}
KINDS = {"car": (8, 3), "bus": (8, 7), "truck": (3, 8)}
"""Width and height in pixels of 10."""

COPIES = 4
KEYWORDS = [f"{colour} {kind}" for colour in COLOURS for kind in KINDS]


def questions() -> list[dict[str, Any]]:
    """A vehicle before a place that has a colour too, in two orders of the words."""
    rows = []
    for colour in COLOURS:
        for kind in KINDS:
            for other in COLOURS:
                words = f"find the {colour} {kind} by the {other} gate".split()
                tags = ["O", "O", "B-COLOUR", "B-KIND", *["O"] * 4]
                rows.append({"text": " ".join(words), "tags": tags})
                words = f"where near the {other} wall is a {colour} {kind}".split()
                tags = [*["O"] * 7, "B-COLOUR", "B-KIND"]
                rows.append({"text": " ".join(words), "tags": tags})
    return rows


def crops(runner: Any, name: str) -> list[dict[str, Any]]:
    """A vehicle of a colour and a kind somewhere in a noisy crop."""
    rng, rows = np.random.default_rng(len(name)), []
    for keywords in KEYWORDS * COPIES:
        colour, kind = keywords.split()
        pixels = rng.integers(90, 166, (10, 10, 3), np.uint8)
        (width, height), (x, y) = KINDS[kind], rng.integers(0, 2, 2)
        noise = rng.integers(-25, 26, (height, width, 3))
        pixels[y : y + height, x : x + width] = np.clip(COLOURS[colour] + noise, 0, 255)
        path = runner.folder / f"{name}{len(rows)}.png"
        Image.fromarray(pixels).save(path)
        rows.append({"crop": str(path), "keywords": keywords})
    return rows


def train(runner: Any, name: str, values: dict[str, Any], steps: int, lr: float) -> Pipeline:
    schedule = {"steps": steps, "batch_size": 18, "optimizer": {"lr": lr}, "log_every": 1}
    return Pipeline(runner.train({**values, "train": schedule}, name))


@pytest.mark.slow
def test_keywords_of_a_question_find_crops(runner: Any) -> None:
    """Precision and recall of the crops that a question finds; they are one number, since as many
    are taken as there are right ones. Controls: the keywords of another question, and the question
    whole."""
    rows = questions()
    held_out = rows[::5]
    tagged = split(runner, "questions", [row for row in rows if row not in held_out])
    task = {"type": "tagging", "input": "text", "pool": "mean", "data": {"train": tagged}}
    tagger = train(runner, "tagger", {"inputs": {"text": TEXT}, "tasks": {"t": task}}, 90, 0.01)
    patches = {"type": "patches", "size": 10, "patch_size": 10, "dim": 32}
    hidden = {"type": "attention_pool", "heads": 2}
    inputs = {
        "crop": {"modality": "image", "encoder": patches, "connector": hidden},
        "keywords": {**TEXT, "connector": "mean"},
    }
    contrast = {
        "type": "contrastive",
        "streams": ["crop", "keywords"],
        "dim": 16,
        "positive_group": "keywords",
        "data": {"train": split(runner, "crops", crops(runner, "seen"))},
    }
    matcher = train(runner, "matcher", {"inputs": inputs, "tasks": {"m": contrast}}, 150, 0.01)

    gallery = crops(runner, "unseen")
    vectors = matcher.embed(crop=[row["crop"] for row in gallery])
    texts = [row["text"] for row in held_out]
    answers = tagger.tag(text=texts)
    keywords = [" ".join(e["text"] for e in answer["entities"]) for answer in answers]
    expected = [
        " ".join(w for w, tag in zip(row["text"].split(), row["tags"], strict=True) if tag != "O")
        for row in held_out
    ]

    def precision(queries: list[str]) -> float:
        scores = matcher.embed(keywords=queries) @ vectors.T
        nearest = scores.topk(COPIES).indices.tolist()
        return float(
            np.mean(
                [
                    gallery[crop]["keywords"] == keyword
                    for keyword, found in zip(expected, nearest, strict=True)
                    for crop in found
                ]
            )
        )

    half = len(keywords) // 2
    others = keywords[half:] + keywords[:half]
    figures = {
        name: precision(q)
        for name, q in (("keywords", keywords), ("others", others), ("whole", texts))
    }
    assert figures["keywords"] > max(figures["others"], figures["whole"]) + 0.3, figures
