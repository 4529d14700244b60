"""A student of a frozen space, trained: widths, what stays and is kept, whose index it asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.engine.checkpoint import load_model
from sensorium.engine.embedding import (
    Retriever,
    embed,
    index_metadata,
    load_run_or_recipe,
    open_data,
)
from sensorium.engine.embedding.retrieve import Query
from sensorium.engine.evaluation import evaluate
from sensorium.engine.model import build
from sensorium.engine.model.parameters import is_frozen
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check
from sensorium.engine.utils import ConfigError
from sensorium.modalities.image.datasets.digits import Digits

BERT = {
    "model_type": "bert",
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 64,
}
TEXT = {"type": "transformers", "config": BERT, "tokenizer": "bytes", "max_length": 64}
ROWS = {
    "train": {"source": "digits", "split": "train", "limit": 24},
    "test": {"source": "digits", "split": "test", "limit": 12},
}
TEACHER: dict[str, Any] = {
    "inputs": {
        "caption": {"modality": "text", "encoder": TEXT, "connector": "mean"},
        "image": {"modality": "image", "encoder": {"type": "tiny_parts:Tiny"}, "connector": "mean"},
    },
    "tasks": {"match": {"type": "contrastive", "streams": ["image", "caption"], "dim": 10}},
    "train": {"steps": 3, "batch_size": 8, "log_every": 1},
}
TEACHER["tasks"]["match"]["data"] = ROWS
KEPT = {"weights": "runs/teacher", "freeze": True}
STUDENT: dict[str, Any] = {
    "inputs": {
        "look": {"modality": "image", "encoder": {"type": "tiny_parts:Tiny"}, "connector": "mean"},
        "caption": {
            "modality": "text",
            "encoder": {**TEXT, **KEPT},
            "connector": {"type": "mean", **KEPT},
        },
    },
    "tasks": {
        "learn": {
            "type": "distill_embedding",
            "student": "look",
            "teacher": "caption",
            "dim": 10,
            "positive_group": "word",
            "data": {k: {**v, "columns": {"look": "image"}} for k, v in ROWS.items()},
        }
    },
    "train": {"steps": 6, "batch_size": 8, "optimizer": {"lr": 0.01}, "log_every": 1},
}


@pytest.fixture
def runs(runner: Any) -> Any:
    """A teacher's run, and its student's."""
    runner.train(TEACHER, "runs/teacher")
    runner.train(STUDENT, "runs/student")
    return runner


def state(model: Any, stream: str) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.stream(stream).state_dict().items()}


def test_the_student_learns_and_the_teacher_stays(runs: Any) -> None:
    before, after = load_model("runs/teacher"), load_model("runs/student")
    assert is_frozen(after.stream("caption").encoder)
    torch.testing.assert_close(state(after, "caption"), state(before, "caption"), rtol=0, atol=0)
    start = build(parse_recipe(STUDENT))
    moved = state(after, "look").items()
    assert any(not torch.equal(value, state(start, "look")[key]) for key, value in moved)
    first, *_, last = [loss for _, _, loss in runs.losses("runs/student")]
    assert last < first


def test_the_teacher_is_encoded_once(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sensorium.modalities.text.transformers import TransformersText

    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("the teacher ran again")

    report = check(parse_recipe(STUDENT))
    assert {s.note for s in report.components if s.where == "inputs.caption.encoder"} == {
        "frozen, features cached"
    }
    monkeypatch.setattr(TransformersText, "forward", refuse)
    runs.train(STUDENT, "runs/again")


def test_scores_of_a_split(runs: Any) -> None:
    result = evaluate(load_model("runs/student"))["learn"]
    assert result["mse"] > 0
    assert 0 <= result["xsim"] <= 1
    assert result["batch_gap"] < 1e-4


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("encoder", "inputs.caption.encoder: trains"),
        ("connector", "inputs.caption.connector: trains"),
    ],
)
def test_a_teacher_that_trains_is_refused(runner: Any, part: str, message: str) -> None:
    inputs = {"caption": {name: {"weights": "none"} for name in ("encoder", "connector")}}
    inputs["caption"][part]["freeze"] = False  # type: ignore[assignment]
    recipe = runner.changed(STUDENT, {"inputs": inputs})
    with pytest.raises(ConfigError, match=message) as error:
        check(parse_recipe(recipe))
    assert f"set freeze: true on inputs.caption.{part}" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_student_ends_in_the_width_of_its_teacher(runner: Any) -> None:
    """Whichever of the two the recipe names first."""
    streams = {"caption": {"encoder": {"weights": "none"}, "connector": None}}
    changes = {"inputs": streams, "tasks": {"learn": {"dim": None}}}
    model = build(parse_recipe(runner.changed(STUDENT, changes)))
    assert model.stream("look").dim == model.stream("caption").dim == BERT["hidden_size"]


def test_a_student_without_a_way_to_that_width_is_refused(runner: Any) -> None:
    streams = {"caption": {"encoder": {"weights": "none"}, "connector": None}}
    changes = {
        "inputs": {**streams, "look": {"connector": None}},
        "tasks": {"learn": {"dim": None}},
    }
    with pytest.raises(ConfigError, match=r"inputs\.look: .* width 8, .*inputs\.caption.* 12"):
        build(parse_recipe(runner.changed(STUDENT, changes)))


def table(runner: Any, run: str, out: str) -> None:
    """The captions of digits, as a run's `caption` gives them, in an index."""
    model = load_run_or_recipe(run)
    rows = open_data(model.plan, "caption", ["source=digits split=test limit=12"], None, "test")
    embed(model, index_metadata(model, "caption", run, ()), rows, out)


def test_the_student_asks_the_teacher_s_own_index(runs: Any) -> None:
    """An index that was made before there was a student."""
    table(runs, "runs/teacher", "old")
    table(runs, "runs/student", "new")
    Image.fromarray(np.uint8(Digits(split="test")[0]["image"]) * 15).save("one.png")
    query = Query("look", "one.png", "--query")
    old = Retriever("old", "runs/student").find(query, 5)
    new = Retriever("new").find(query, 5)
    assert [(hit.key, round(hit.score, 5)) for hit in old] == [
        (hit.key, round(hit.score, 5)) for hit in new
    ]


def test_a_student_of_another_teacher_is_refused(runs: Any) -> None:
    table(runs, "runs/teacher", "old")
    other = runs.changed(TEACHER, {"train": {"seed": 1}})
    runs.train(other, "runs/other")
    again = {name: {"weights": "runs/other"} for name in ("encoder", "connector")}
    runs.train(runs.changed(STUDENT, {"inputs": {"caption": again}}), "runs/stranger")
    Image.new("L", (8, 8)).save("one.png")
    with pytest.raises(ConfigError, match="stream 'caption' has the fingerprint"):
        Retriever("old", "runs/stranger").find(Query("look", "one.png", "--query"), 1)


def test_a_known_stream_that_has_changed_is_refused(runs: Any) -> None:
    """`image` made no vector of this index, and is not the one that its run had."""
    table(runs, "runs/teacher", "old")
    renamed = runs.changed(STUDENT, {"tasks": {"learn": {"student": "image"}}})
    renamed["inputs"]["image"] = renamed["inputs"].pop("look")
    for split in renamed["tasks"]["learn"]["data"].values():
        split.pop("columns")
    runs.train(renamed, "runs/renamed")
    Image.new("L", (8, 8)).save("one.png")
    with pytest.raises(ConfigError, match="stream 'image' has the fingerprint"):
        Retriever("old", "runs/renamed").find(Query("image", "one.png", "--query"), 1)
    assert Path("old").exists()
