"""The templates of the report and of the contact sheet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from sensorium.engine.report.diagram import Box, PipelineDiagram
from sensorium.engine.report.report import RunReport
from sensorium.engine.report.rollouts import Rollouts, Video
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
