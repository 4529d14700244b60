"""What the report is made of: verdicts on predictions, readings of metrics, charts."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import Markup

from sensorium.engine.evaluation import read_table
from sensorium.engine.evaluation.input_use import noise
from sensorium.engine.recipe import parse_recipe, plan_recipe
from sensorium.engine.report.charts import (
    Line,
    LineChart,
    downsample,
    format_tick,
    line_chart,
    smooth,
)
from sensorium.engine.report.diagram import pipeline_diagram
from sensorium.engine.report.judge import judge
from sensorium.engine.report.previews import without_repeats
from sensorium.engine.report.samples import select_rows

PATCHES = {"type": "patches", "size": 8, "patch_size": 4, "dim": 8, "freeze": True}
READER = {"type": "causal_lm", "name": "tiny-llama", "weights": "none"}
RECIPE = {
    "inputs": {
        "picture": {"modality": "image", "encoder": PATCHES, "connector": "mlp"},
        "hint": {"modality": "text", "encoder": READER},
    },
    "backbone": {"type": "causal", "name": "tiny-llama", "tokenizer": "bytes", "weights": "none"},
    "tasks": {
        "caption": {"type": "captioning", "prompt": "<picture> <hint> Describe:"},
        "kind": {"type": "classification", "input": "picture", "target": "kind"},
    },
}
CARD = "| inputs.picture.encoder | patches | none | 12,345 | no |\n"


@pytest.mark.parametrize(
    ("prediction", "target", "right"),
    [
        ({"text": "a  dot"}, {"references": ["no", "a dot"]}, True),
        ({"text": "a dot"}, {"references": ["a dot."]}, False),
        ({"text": "a dot"}, {"references": []}, None),
        ({"label": "one", "score": 0.9}, {"label": "one"}, True),
        ({"label": 1}, {"label": 2}, False),
        ({"label": ["b", "a"]}, {"label": ["a", "b"]}, True),
        ({"label": ["a"]}, {"label": ["a", "b"]}, False),
        ({"label": "one"}, {}, None),
        ({"age": 3.0}, {"age": 4.5}, None),
        ({"steps": [1, 2]}, {"steps": [1, 2]}, True),
        (3.5, 3.5, None),
        ("a", "b", False),
    ],
)
def test_judging_follows_the_form(prediction: Any, target: Any, right: bool | None) -> None:
    assert judge(prediction, target).correct is right


def test_numbers_say_how_far_off_they_are() -> None:
    verdict = judge({"age": 3.0, "dose": 1.0}, {"age": 4.5, "dose": 1})
    assert verdict.note == "age off by 1.5, dose off by 0"


def test_words_that_differ_are_marked() -> None:
    marked = judge(
        {"text": "a <b> dot"}, {"references": ["a blue dot", "two squares"]}
    ).prediction_html
    assert marked == "a <mark>&lt;b&gt;</mark> dot"


def test_a_prompt_that_all_rows_share_stands_once() -> None:
    lines = [
        {"key": str(i), "prediction": {"text": "x"}, "target": {"prompt": ["", f" {q}?"]}}
        for i, q in enumerate(("who", "who"))
    ]
    grid = select_rows("t", lines, 8)
    assert grid.prompt == "◻ who?" and {s.prompt for _, g in grid.groups for s in g} == {""}
    lines[1]["target"] = {"prompt": ["", " where?"]}
    grid = select_rows("t", lines, 8)
    assert not grid.prompt
    assert [s.prompt for _, g in grid.groups for s in g] == ["◻ who?", "◻ where?"]


@pytest.mark.parametrize(
    ("values", "count", "good"),
    [
        ({"acc": 0.9, "acc_image_shuffled": 0.1}, 100, True),
        ({"acc": 0.12, "acc_image_shuffled": 0.1}, 100, False),
        ({"acc": 0.5, "acc_image_shuffled": 0.5}, 100, False),
        ({"acc": 0.9, "acc_image_shuffled": 0.1}, None, None),
        ({"mae": 2.0, "mae_image_shuffled": 9.0}, 100, True),
        ({"mae": 2.0, "mae_image_shuffled": 2.1}, 100, False),
    ],
)
def test_whether_an_input_is_used(
    values: dict[str, float | None], count: int | None, good: bool | None
) -> None:
    table = read_table("task", values, ["image", "image_2"], None, count)
    (name,) = (n for n in values if not n.endswith("shuffled"))
    assert table.streams == ("image",)
    assert table.rows == [(name, values[name], [values[f"{name}_image_shuffled"]])]
    assert [s.good for s in table.findings] == [good]


@pytest.mark.parametrize(
    ("pairs", "good", "text"),
    [
        ([(0.5, 0.5), (0.9, 0.1)], True, "m1 goes from 0.9 to 0.1"),  # the headline alone says no
        ([(0.9, 0.1), (0.9, 0.2)], True, "m0 goes from 0.9 to 0.1"),
        ([(0.9, 0.1), (0.9, 0.2), (0.3, 0.3)], True, "2 of 3 metrics"),
        ([(0.51, 0.5), (0.5, 0.49)], False, "no other of 2"),
        ([(0.5, 0.5), (3.0, 3.0)], False, "changes nothing"),
        ([(None, 0.5), (0.9, 0.1)], True, "m1 goes"),
        ([(None, None), (0.9, None)], None, "no metric is defined"),
        ([(0.56, 0.38)] + [(0.5, 0.5)] * 9, None, ""),
    ],
)
def test_all_metrics_are_asked_whether_an_input_is_used(
    pairs: list[tuple[float | None, float | None]], good: bool | None, text: str
) -> None:
    values: dict[str, float | None] = {}
    for i, (score, other) in enumerate(pairs):
        values |= {f"m{i}": score, f"m{i}_image_shuffled": other}
    (finding,) = read_table("task", values, ["image"], None, 100 if text else None).findings
    assert finding.good is good and text in finding.text


def test_more_metrics_must_differ_by_more() -> None:
    widths = [noise(0.4, 0.5, 100, comparisons) for comparisons in (1, 2, 10, 50)]
    assert widths == sorted(widths) and widths[0] < widths[-1] < 2 * widths[0]
    assert noise(0.4, 0.5, 100, 1) == pytest.approx(noise(0.4, 0.5, 100))


def test_the_headline_is_the_metric_that_chose_the_weights() -> None:
    values = {"f1": 0.5, "accuracy": 0.6}
    assert read_table("t@other", values, [], "t/accuracy", 9).headline == "accuracy"
    assert read_table("u", values, [], "t/accuracy", 9).headline == "f1"


def test_scores_that_depend_on_the_batch_are_said() -> None:
    (sentence,) = read_table("t", {"f1": 0.5, "batch_gap": 0.2}, [], None, 9).findings
    assert sentence.good is False and "0.2" in sentence.text


def test_chance_stays_within_the_noise() -> None:
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.97):
        first, second = rng.binomial(200, share, (2, 400)) / 200
        beyond = [abs(a - b) > noise(a, b, 200) for a, b in zip(first, second, strict=True)]
        assert np.mean(beyond) < 0.02


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.05, "0.05"), (2000, "2,000"), (35_000, "35k"), (1e-4, "1e-4"), (-5e6, "-5M")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert format_tick(value) == text


@pytest.mark.parametrize("count", [8, 50, 301])
def test_smoothing_keeps_a_line_and_has_no_lag(count: int) -> None:
    line = [(float(x), 3.0 * x) for x in range(count)]
    reach = max(2, count // 30)
    smoothed = smooth(line)
    assert np.allclose(smoothed[reach:-reach], line[reach:-reach])
    assert smoothed[0] == (0.0, pytest.approx(np.mean([y for _, y in line[: reach + 1]])))


def test_thinning_keeps_spikes() -> None:
    points = [(float(x), 0.0) for x in range(10_000)]
    points[4321] = (4321.0, 9.0)
    remaining = downsample(points)
    assert (4321.0, 9.0) in remaining and len(remaining) <= 600
    assert remaining == sorted(remaining)


def points_of(chart: LineChart, color: str) -> list[tuple[float, float]]:
    """The px of the lines of a colour, y downwards."""
    root = ElementTree.fromstring(chart.svg)
    drawn = [e for e in root.iter("path") if f"stroke: var(--{color}" in e.get("style", "")]
    numbers = re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", drawn[0].get("d", ""))
    return [(float(x), float(y)) for x, y in numbers]


def test_a_chart_puts_points_where_they_belong() -> None:
    chart = line_chart([Line("a", [(0, 0), (5, 5), (10, 10)])], "step", "loss")
    assert chart is not None and line_chart([Line("a", [])], "step", "loss") is None
    (x0, y0), (x1, y1), (x2, y2) = points_of(chart, "c0")
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.01) and y1 == pytest.approx(
        (y0 + y2) / 2, abs=0.01
    )
    assert 0 < x0 < x2 < 320 and 205 > y0 > y2 > 0
    assert chart.legend == [("a", "10", 0)]


def test_values_of_many_sizes_stand_on_a_logarithmic_axis() -> None:
    chart = line_chart([Line("a", [(0, 1e-4), (1, 1e-2), (2, 1.0)])], "step", "lr")
    assert chart is not None and ">lr (log)</text>" in chart.svg
    (_, y0), (_, y1), (_, y2) = points_of(chart, "c0")
    assert y1 == pytest.approx((y0 + y2) / 2, abs=0.02)
    for tick in ("0.01", "1e-4"):
        assert f">{tick}</text>" in chart.svg


def test_a_chart_tells_its_dots_and_its_ends() -> None:
    lines = [
        Line("a", [(0, 1), (10, 2)], dots=True),
        Line("b", [(0, 1), (5, 3), (9, 4)], 1, marked_x=5),
    ]
    lines += [Line("noise", [(0, 1)] * 9, 2, faint=True)]
    chart = line_chart(lines, "bases", "error")
    assert chart is not None
    root = ElementTree.fromstring(chart.svg)
    titles = [element.text for element in root.iter("title")]
    assert titles == ["a, 0: 1", "a, 10: 2", "b, 5: 3"]
    assert root.get("aria-label") == "error over bases. a: 1 at 0, 2 at 10; b: 1 at 0, 4 at 9"
    assert chart.legend == [("a", "2", 0), ("b", "3", 1)]


def test_the_way_says_what_a_task_takes() -> None:
    recipe = parse_recipe(RECIPE)
    boxes = pipeline_diagram(recipe, CARD, plan_recipe(recipe))
    assert [box.detail for box in boxes.tasks] == [
        "captioning",
        "classification, of picture, without the decoder",
    ]
    assert [[box.role for box in lane] for lane in boxes.lanes] == [
        ["input", "encoder", "connector"],
        ["input", "encoder"],
    ]
    assert boxes.lanes[0][1].size == "12.3\N{NO-BREAK SPACE}k" and boxes.lanes[0][1].frozen
    assert boxes.decoders and "decoder causal trained" in boxes.aria_label
    assert "encoder patches frozen" in boxes.aria_label


def test_the_pipeline_shows_every_decoder_and_what_is_shared() -> None:
    llama = {"type": "causal", "name": "tiny-llama", "tokenizer": "bytes", "weights": "none"}
    text = {"modality": "text", "encoder": {"share": "backbone"}, "connector": "mean"}
    recipe = parse_recipe(
        {
            "inputs": {"query": text, "passage": {"share": "query"}},
            "backbone": llama,
            "decoders": {"teacher": {**llama, "freeze": True}},
            "tasks": {"match": {"type": "contrastive", "streams": ["query", "passage"]}},
        }
    )
    diagram = pipeline_diagram(recipe, "")
    assert "encoder shared with backbone" in diagram.aria_label
    assert "encoder shared with query, then connector shared with query" in diagram.aria_label
    assert [box.role for box in diagram.decoders] == ["decoder", "decoder"]
    assert diagram.decoders[1].frozen


def test_a_judges_stream_does_not_show_the_target_again() -> None:
    """An input that equals another one is still shown: it is what the model was given."""
    red, blue = Markup("<i>red</i>"), Markup("<i>blue</i>")
    drawn = [("hint", red), ("again", red), ("image", blue), ("judge", blue), ("mask", red)]
    shown = [name for name, _ in without_repeats(drawn, {"image", "judge"})]
    assert shown == ["hint", "again", "image", "mask"]
