"""What a report makes of each form of prediction: words, actions, boxes, masks; and its films."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium.engine.data import load_split
from sensorium.engine.model import FITTED, save_fitted
from sensorium.engine.recipe import ResolvedRecipe, parse_recipe, plan_recipe
from sensorium.engine.report import write_report
from sensorium.engine.report.comparison import compare
from sensorium.engine.report.curves import fitted_charts
from sensorium.engine.report.judge import annotations_of, judge, overlap
from sensorium.engine.report.samples import select_rows
from sensorium.tasks.speech import normalizer_of
from sensorium.tasks.speech.metrics import SpeechMetrics

CUBE, APART = [0, 0, 0, 2, 2, 2], [1, 0, 0, 3, 2, 2]
STEPS = [[0.0, 1.0], [0.5, 1.0], [2.0, 1.0]]


@pytest.mark.parametrize(
    ("prediction", "target", "right", "note"),
    [
        ({"text": "a b", "passes": 3}, {"text": "a b"}, True, "passes 3"),
        ({"text": "a", "words": [["a", 0, 1]]}, {"text": "b"}, False, ""),
        ({"text": ""}, {"text": ""}, True, ""),
        ({"actions": STEPS}, {}, None, ""),
        ({"actions": STEPS, "undecodable": True}, {"actions": STEPS}, False, "mean action"),
        ({"boxes": [CUBE], "scores": [0.9]}, {"boxes": [APART]}, None, "overlap (IoU) 0.33"),
        ({"boxes": [CUBE], "scores": [0.1]}, {"boxes": []}, True, "score 0.1"),
        ({"boxes": [CUBE], "scores": [0.9]}, {"boxes": []}, False, ""),
        ({"boxes": []}, {"boxes": [CUBE]}, False, ""),
        ({"boxes": []}, {}, None, ""),
        ({"mask": {"runs": [1]}, "size": 8.0, "scores": {"dice": 0.5}}, {}, None, "dice 0.5"),
        ({"peak": [1.0, 2.0, 3.0], "score": 0.9, "hit": True}, {}, True, "score 0.9"),
        ({"peak": [1.0, 2.0, 3.0], "score": 0.9, "hit": None}, {}, None, "score 0.9"),
        ({"forecast": [[1.0, 2.0]]}, {}, None, ""),
        ({"forecast": [[1.0, 2.0]]}, {"forecast": [[1.0, None]]}, None, "off by 0 in the mean"),
        ({"forecast": [[1.0, 2.0]]}, {"forecast": [[2.0, 5.0]]}, None, "by 3 at most"),
        ({"dice": 0.5, "map": [[1]]}, {"dice": 1.0}, None, "off by 0.5"),
    ],
)
def test_forms_are_judged(
    prediction: dict[str, Any], target: dict[str, Any], right: bool | None, note: str
) -> None:
    verdict = judge(prediction, target)
    assert verdict.correct is right and note in verdict.note
    assert "[" not in verdict.prediction


def test_attributes_of_the_reference_are_not_said_of_the_sample() -> None:
    verdict = judge({"image": "data:", "mse": 1.5}, {"colour": "red"})
    assert "red" not in verdict.prediction
    assert any("red" in reference for reference in verdict.references)
    assert verdict.correct is None
    assert "1.5" in verdict.note


def test_actions_are_off_only_where_there_is_something_to_do() -> None:
    expected = [[0.0, 1.0], [0.0, 1.25], [9.0, 9.0]]
    verdict = judge({"actions": STEPS}, {"actions": expected, "padding": [False, False, True]})
    assert verdict.note == "off by 0.188 in the mean, by 0.5 at most (joint 0)"
    assert not verdict.references and verdict.prediction == "3 steps of 2 joints"


def test_what_differs_is_marked_on_both_sides() -> None:
    texts = ["a big dog", "two", "a dog <barks>"]
    prediction, *references = [[(word, word) for word in text.split()] for text in texts]
    prediction, (far, near) = compare(prediction, references)
    assert prediction == "a <mark>big</mark> dog <mark>…</mark>"
    assert near == 'a dog <mark class="lost">&lt;barks&gt;</mark>' and far == "two"
    twice = judge({"text": "go " * 300}, {"text": "go " * 299 + "on"})
    assert "go on" not in twice.references_html[0] and twice.references_html[0].count("<mark") == 1


@pytest.mark.parametrize(
    ("text", "reference", "normalizer", "right", "marked"),
    [
        ("Go HOME, now!", "go home now", "unicode", True, []),
        ("Go HOME - now!", "go away now", "unicode", False, ["HOME -"]),
        ("Go home", "go home", "none", False, ["Go"]),
        ("one two three", "123", "english", True, []),
        ("one two four dogs", "one two three dogs", "english", False, ["124"]),
        ("किताब मेज", "कुताब मेज", "unicode", False, ["किताब"]),
        ("किताब मेज", "कुताब मेज", "basic", True, []),
    ],
)
def test_a_report_marks_what_the_metric_counts(
    text: str, reference: str, normalizer: Any, right: bool, marked: list[str]
) -> None:
    metrics = SpeechMetrics(normalizer)
    metrics.update([{"text": text}], [{"text": reference}])
    assert (metrics.compute()["wer"] == 0) is right
    verdict = judge({"text": text}, {"text": reference}, normalizer_of(normalizer))
    assert verdict.correct is right
    assert re.findall("<mark>(.*?)</mark>", verdict.prediction_html) == marked


def test_overlaps() -> None:
    assert overlap(CUBE, CUBE) == 1 and overlap(CUBE, [5, 5, 5, 6, 6, 6]) == 0
    assert overlap([0, 0, 2, 1], [1, 0, 3, 1]) == pytest.approx(1 / 3)
    assert overlap([0, 0, 0, 0], [0, 0, 0, 0]) == 0


def test_marks_are_what_is_there() -> None:
    words = [["a", 0.0, 0.5]]
    assert annotations_of({"text": "a", "words": words}, {"text": "a"}) == {"words": (words, None)}
    low, sure = [0, 0, 1, 1], [2, 2, 3, 3]
    built = {"boxes": [sure, low], "scores": [0.8, 0.2]}
    assert annotations_of(built, {"boxes": [low]}) == {"boxes": ([sure], [low])}
    assert annotations_of({"boxes": [low], "scores": [0.2]}, {}) == {"boxes": ([low], None)}
    assert annotations_of("a", None) == {}


def test_neighbours_are_not_all_that_is_shown() -> None:
    lines = [{"key": str(i), "prediction": {"actions": STEPS}, "target": {}} for i in range(100)]
    ((title, group),) = select_rows("act", lines, 4).groups
    assert [sample.key for sample in group] == ["0", "25", "50", "75"]
    assert title == "Rows: 4 of 100, evenly apart"


ROBOT = {
    "inputs": {
        "state": {"modality": "action", "encoder": {"type": "state"}, "connector": "linear"}
    },
    "backbone": {"type": "causal", "name": "tiny-llama", "tokenizer": "bytes", "weights": "none"},
    "tasks": {
        "walk": {
            "type": "control",
            "prompt": "<state>",
            "action_decoder": "continuous",
            "tokenizer": {"type": "bspline", "num_basis": 4, "degree": 3},
        }
    },
}


@pytest.fixture
def robot(tmp_path: Path) -> tuple[Path, ResolvedRecipe]:
    """A run's folder with fitted parts and predictions made up, over a table of walks."""
    rng = np.random.default_rng(0)
    table = tmp_path / "walks.jsonl"
    rows = [{"state": rng.normal(size=3).tolist()} for _ in range(4)]
    chunks = np.cumsum(rng.normal(size=(4, 8, 2)), 1)
    for row, chunk in zip(rows, chunks, strict=True):
        row["action"] = chunk.tolist()
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = parse_recipe(ROBOT)
    data = {split: {"source": "json", "path": str(table)} for split in ("train", "test")}
    recipe = parse_recipe({**ROBOT, "tasks": {"walk": {**ROBOT["tasks"]["walk"], "data": data}}})
    plan, run = plan_recipe(recipe), tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(json.dumps(recipe.model_dump(mode="json", by_alias=True)))
    fitted = plan.fitted()
    fitted["tasks.walk.tokenizer"].fit(chunks)
    fitted["tasks.walk.chunk"].fit((chunk, np.zeros(8, bool)) for chunk in chunks)
    fitted["inputs.state.encoder.normalizer"].fit([np.array([row["state"]]) for row in rows])
    save_fitted(plan, run / FITTED)
    source = load_split(plan, "walk", "test")
    lines = [
        {
            "key": source.key(i),
            "prediction": {"actions": (chunk + 0.1).tolist()},
            "target": {"actions": chunk.tolist(), "padding": [False] * 7 + [True]},
        }
        for i, chunk in enumerate(chunks)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "predictions-walk.jsonl").write_text(text)
    return run, plan


def test_a_robots_page_shows_curves_knots_and_errors(
    robot: tuple[Path, ResolvedRecipe], tmp_path: Path
) -> None:
    run, _ = robot
    page = write_report([run], tmp_path / "page.html").read_text()
    assert "Fitted: tasks.walk.tokenizer" in page and "joint 1, with 4" in page
    assert page.count('aria-label="8 steps of 2 joints"') == 4
    shown = re.findall(r'<svg [^>]*aria-label="8 steps of 2 joints".*?</svg>', page)
    dots = [drawn.count("fill: var(--c1") for drawn in shown]
    assert all(7 * 2 <= count <= 7 * 2 + 2 for count in dots)  # a padded sample has none
    assert "control points" in page and "reference" in page and "off by 0.1" in page
    assert "1 step of 3 joints" in page and "nan" not in page


def test_a_page_goes_on_without_what_was_fitted(
    robot: tuple[Path, ResolvedRecipe], tmp_path: Path
) -> None:
    run, plan = robot
    (run / FITTED / "tasks.walk.tokenizer.json").unlink()
    page = write_report([run], tmp_path / "page.html").read_text()
    assert "The fitted parts cannot be shown here: tasks.walk.tokenizer" in page
    assert "8 steps of 2 joints" in page and "control points" not in page
    assert len(fitted_charts(plan)) == 1
    assert not fitted_charts(plan_recipe(plan.recipe))


def test_films_that_are_too_large_stay_where_they_are(
    robot: tuple[Path, ResolvedRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = robot
    summary = {"episodes": 1, "success": 1.0, "success_interval": [0.2, 1.0]}
    summary |= {"success_at_end": 1.0, "steps_to_success": 3}
    for number in (1, 2):
        (run / f"{number}.gif").write_bytes(b"GIF89a")
    messages = {"env": "world", "ablation": "", "summary": summary, "videos": ["1.gif", "2.gif"]}
    messages["trajectory"] = {"seed": 1, "commands": STEPS, "hand": [[0.0, 0.0, 0.1]] * 4}
    (run / "rollout-world.json").write_text(json.dumps(messages))
    monkeypatch.setattr("sensorium.engine.report.rollouts.LARGEST", 9)
    page = write_report([run], tmp_path / "page.html").read_text()
    assert page.count("data:image/gif") == 1 and "in the run&#39;s folder" in page
    assert "commands in world" in page and "the hand in world" in page


def test_inputs_that_would_make_a_page_too_large_are_counted(
    robot: tuple[Path, ResolvedRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensorium.engine.report.previews.LARGEST", 500)
    page = write_report([robot[0]], tmp_path / "page.html").read_text()
    assert "would make the page too large" in page
    assert 0 < page.count("1 step of 3 joints<") < 4 or page.count("1 step of 3 joints") < 8
