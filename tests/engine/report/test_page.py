"""The templates of the report and of the contact sheet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from sensorium.engine.evaluation import Finding, Table
from sensorium.engine.report.contact_sheet import Sheet
from sensorium.engine.report.diagram import Box, PipelineDiagram
from sensorium.engine.report.report import RunReport
from sensorium.engine.report.rollouts import Rollouts, Video
from sensorium.engine.report.samples import SampleGrid
from sensorium.engine.utils.template import TEMPLATES, format_number, render

HOSTILE = "<script>alert('x')</script>"
CONTACT = {"title": "t", "query": "q", "note": "n", "hits": []}


def run_report(**changes: object) -> RunReport:
    values = {
        "name": "a run",
        "command": "",
        "software": "",
        "notes": [],
        "facts": [],
        "pipeline": PipelineDiagram([], [], [Box("task", "t")]),
        "loss": None,
        "curves": [],
        "others": [],
        "fitted": [],
        "tables": [],
        "rollouts": None,
        "samples": [],
        "recipe": "",
    }
    return RunReport(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("report.html.j2", {"title": "t", "runs": [run_report()]}),
        ("contact_sheet.html.j2", CONTACT),
    ],
)
def test_pages_share_one_stylesheet_and_run_nothing(template: str, values: dict) -> None:
    page = render(template, **values)
    assert page.startswith("<!doctype html>")
    assert page.count("<style>") == 1
    assert (TEMPLATES / "report.css").read_text().strip() in page
    policy = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in page
    assert "<script" not in page and "<link" not in page and "url(" not in page


def test_every_class_of_the_templates_has_a_style() -> None:
    style = (TEMPLATES / "report.css").read_text()
    known = set(re.findall(r"\.([a-z][\w-]*)", style))
    for file in TEMPLATES.glob("*.j2"):
        for names in re.findall(r'class="([a-z -]+)"', file.read_text()):
            assert set(names.split()) <= known, file.name


def test_texts_are_escaped_and_markup_is_not() -> None:
    values = {**CONTACT, "title": HOSTILE, "note": HOSTILE, "query": Markup("<i>q</i>")}
    page = render("contact_sheet.html.j2", **values)
    assert "<script" not in page and "<i>q</i>" in page
    rows = [[HOSTILE, "as it is", *"12345"]]
    rollouts = Rollouts(rows, [Video(HOSTILE, problem=HOSTILE)], [(HOSTILE, Markup("<b>m</b>"))])
    pipeline = PipelineDiagram([[Box("input", HOSTILE, HOSTILE)]], [Box("decoder", "d")], [])
    hostile = {"notes": [HOSTILE], "facts": [(HOSTILE, HOSTILE * 3)], "command": HOSTILE}
    run = run_report(**hostile, rollouts=rollouts, pipeline=pipeline, recipe=HOSTILE)
    page = render("report.html.j2", title=HOSTILE, runs=[run, run])
    assert "<script" not in page and page.count("<b>m</b>") == 2


def test_a_run_of_several_tasks_has_a_section_each() -> None:
    uses = Finding(True, "It uses it.", f"{HOSTILE}: yes")
    table = Table("find", ("image",), [("recall@1", 0.5, [0.25])], "recall@1", [uses], 9, {})
    scored = Table("say", ("image",), [("exact", 0.5, [0.1])], "exact", [], 9, {"exact": 0.125})
    sheet = Sheet(
        HOSTILE, Markup("<b>query</b>"), 2, [(Markup("<i>h</i>"), i == 1) for i in (0, 1)]
    )
    grid = SampleGrid("find", 9, [], sheets=[sheet])
    run = run_report(
        tables=[table, scored],
        samples=[grid],
        types={"find": "contrastive", "say": "captioning", "act": "control"},
        policy="act",
        rollouts=Rollouts([], [], [("hand", Markup("<b>m</b>"))]),
    )
    page = render("report.html.j2", title="t", runs=[run])
    assert "<script" not in page and page.count("<b>m</b>") == 1
    sections = re.findall(r'<section id="task-(\w+)">(.*?)</section>', page, re.S)
    assert [name for name, _ in sections] == ["find", "say", "act"]
    text = dict(sections)
    assert "<b>query</b>" in text["find"] and text["find"].count("<i>h</i>") == 2
    assert text["find"].count('class="sample right"') == 1
    assert "0.5000</b> ± 0.1250, 0.1000 with image shuffled" in text["say"]
    assert "<b>m</b>" in text["act"] and "not evaluated" in page


TEXT_COLORS = {
    "page": ("ink", "soft"),
    "paper": ("ink", "soft", "good", "bad", "c0"),
    "card": ("ink", "soft", "good", "bad", "c0"),
    "good-paper": ("ink",),
    "bad-paper": ("ink",),
    "mark": ("ink",),
}
"""Background -> colors of the texts on it."""


def luminance(color: str) -> float:
    """Return the relative luminance of `#rgb` or `#rrggbb` (WCAG 2.2)."""
    digits = color.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colors, 1 to 21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_texts_have_the_contrast_that_wcag_asks_for() -> None:
    assert contrast("#fff", "#000") == pytest.approx(21)
    style = (TEMPLATES / "report.css").read_text()
    schemes = [
        dict(re.findall(r"--([\w-]+): (#\w+)", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.S)
    ]
    assert len(schemes) == 2 and schemes[0].keys() == schemes[1].keys()
    for colors in schemes:
        for background, texts in TEXT_COLORS.items():
            for text in texts:
                ratio = contrast(colors[background], colors[text])
                assert ratio >= 4.5, (text, background, ratio)
        for name in (f"c{i}" for i in range(6)):  # lines of charts
            assert contrast(colors["paper"], colors[name]) >= 3, name


def test_a_value_that_a_template_misses_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="note"):
        render("contact_sheet.html.j2", title="t", query="q", hits=[])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not defined"),
        (0.0, "0.0000"),
        (0.25, "0.2500"),
        (1e-4, "1.00e-04"),
        (-2.0, "-2.0000"),
    ],
)
def test_numbers_keep_their_digits(value: float | None, text: str) -> None:
    assert format_number(value) == text


def test_the_package_holds_its_templates() -> None:
    assert {f.name for f in Path(TEMPLATES).iterdir()} >= {"base.html.j2", "report.css"}
