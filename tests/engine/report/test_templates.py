"""Attributes that templates read are those of the classes that pages are made of."""

from __future__ import annotations

from dataclasses import fields

import pytest
from jinja2 import nodes
from jinja2.runtime import LoopContext

from sensorium.engine.evaluation.input_use import Finding, Table
from sensorium.engine.index import Hit
from sensorium.engine.report.charts import LineChart
from sensorium.engine.report.comparison import Comparison
from sensorium.engine.report.contact_sheet import Sheet
from sensorium.engine.report.diagram import Box, PipelineDiagram
from sensorium.engine.report.look import LookRow
from sensorium.engine.report.report import Headline, RunReport, TaskSection
from sensorium.engine.report.rollouts import Rollouts, Video
from sensorium.engine.report.samples import ReportRow, SampleGrid
from sensorium.engine.utils.template import TEMPLATES, _environment

CLASSES = (
    *(Box, Finding, Hit, LineChart, PipelineDiagram, ReportRow, Rollouts, RunReport, SampleGrid),
    *(Comparison, Headline, LookRow, Sheet, Table, TaskSection, Video),
)
PAGES = sorted(path.name for path in TEMPLATES.glob("*.j2"))
MACROS = {
    macro.name
    for name in PAGES
    for macro in _environment().parse((TEMPLATES / name).read_text()).find_all(nodes.Macro)
}
KNOWN = (
    {field.name for cls in CLASSES for field in fields(cls)}
    | {name for cls in (*CLASSES, LoopContext, dict, str) for name in dir(cls)}
    | MACROS
)


def unknown(source: str) -> set[str]:
    """Return the attributes that a template reads and no class has, those in filters too."""
    tree = _environment().parse(source)
    names = {node.attr for node in tree.find_all(nodes.Getattr)}
    for node in tree.find_all(nodes.Filter):
        texts = [keyword.value for keyword in node.kwargs if keyword.key == "attribute"]
        texts += node.args[:1] if node.name in ("selectattr", "rejectattr") else []
        names |= {text.value for text in texts if isinstance(text, nodes.Const)}
    return names - KNOWN


@pytest.mark.parametrize("name", PAGES)
def test_attributes_in_templates_exist(name: str) -> None:
    assert not unknown((TEMPLATES / name).read_text())


def test_an_old_name_would_be_noticed() -> None:
    source = "{{ table.sentences }}{{ rows|selectattr('brief')|join(attribute='long') }}"
    assert unknown(source) == {"sentences", "brief", "long"}
