"""Figures for a page: inline, in its colours, repeatable, and nothing of matplotlib's outside."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from sensorium.engine.utils.template import TEMPLATES
from sensorium.modalities.figures import COLORS, DASHES, new_figure, to_svg

HOSTILE = "<b>$\\frac$ & 図 \x07</b>"
STYLESHEET = TEMPLATES / "report.css"


def drawn(label: str = "a label", color: str = "c0") -> str:
    with new_figure(200, 100) as figure:
        axes = figure.add_axes((0.1, 0.2, 0.8, 0.7))
        axes.plot([0, 1], [0, 1], "o-", color=COLORS[color], gid="line")
        axes.set_xlabel(label)
        return to_svg(figure, label, {"line": label})


def test_a_figure_is_repeatable_and_needs_nothing_else() -> None:
    text = drawn()
    assert text == drawn() and text.startswith("<svg ")
    for outside in ("http", "xmlns", "<style", "<metadata", "<script", "font-family", "DOCTYPE"):
        assert outside not in text
    root = ElementTree.fromstring(text)
    assert root.get("viewBox") == "0 0 200 100"
    assert root.get("role") == "img" and root.get("aria-label") == "a label"


def test_texts_are_kept_and_escaped() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = ElementTree.fromstring(drawn(HOSTILE))
    shown = HOSTILE.replace("\x07", "")
    assert shown in [element.text for element in root.iter("text")]
    assert [element.text for element in root.iter("title")] == [shown]


def test_ids_of_one_page_differ_and_every_reference_is_met() -> None:
    seen: set[str] = set()
    for label in ("one", "two"):
        root = ElementTree.fromstring(drawn(label))
        ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        text = ElementTree.tostring(root, encoding="unicode")
        used = set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text))
        assert set(ids) == used and len(set(ids)) == len(ids)
        assert not seen & used
        seen |= used


def test_colours_are_those_of_the_page() -> None:
    light = STYLESHEET.read_text().partition("@media")[0]
    for name, color in COLORS.items():
        assert f"--{name}: {color};" in light
    text = drawn(color="c3")
    assert f"stroke: var(--c3, {COLORS['c3']})" in text
    assert not re.search(r"(?:fill|stroke): #", text)  # else it would be unreadable in the dark
    assert len(DASHES) == sum(re.fullmatch(r"c\d", name) is not None for name in COLORS)


@pytest.mark.parametrize("value", [True, False])
def test_settings_of_the_user_are_neither_read_nor_changed(value: bool) -> None:
    plain = drawn()
    with matplotlib.rc_context({"axes.grid": value, "font.size": 30, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        assert drawn() == plain
        assert dict(matplotlib.rcParams) == before


@pytest.mark.slow
def test_matplotlib_is_imported_for_a_figure_alone() -> None:
    code = (
        "import sys, numpy as np\n"
        "import sensorium.engine.report.report\n"
        "import sensorium.engine.training.dry_run\n"
        "import sensorium.modalities.action\n"
        "from sensorium.modalities.action.plot import draw\n"
        "print('matplotlib' in sys.modules)\n"
        "draw({'actions': np.eye(3)}, {}, {})\n"
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_actions_are_drawn_with_what_was_not_padded(steps: int) -> None:
    from sensorium.modalities.action.plot import MAX_JOINTS, draw

    actions = np.arange(steps * 10.0).reshape(steps, 10)
    page = draw(
        {"actions": actions}, {"actions": actions, "padding": [False] * (steps - 1) + [True]}, {}
    )
    root = ElementTree.fromstring(page)
    texts = [element.text for element in root.iter("text")]
    assert [text for text in texts if text and text.startswith("joint")] == [
        f"joint {i}" for i in range(MAX_JOINTS)
    ]
    ends = ["step 0", f"step {steps - 1}"][: min(steps, 2)]
    assert [text for text in texts if text and text.startswith("step")] == ends
    (label,) = (element.get("aria-label") for element in root.iter("svg"))
    assert label == f"{steps} steps of 10 joints, the first 8 drawn"
    # A dot a sample: the steps that were predicted, and one less of the reference.
    marks = [element.get("style", "") for element in root.iter("use")]
    assert sum("var(--c0" in style for style in marks) == steps * MAX_JOINTS
    assert sum("var(--c1" in style for style in marks) == (steps - 1) * MAX_JOINTS
