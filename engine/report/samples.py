"""Selection of sample rows of a run: which, how many are wrong, and their prompts.

Predictions are judged by their type (`judge.py`), and drawn with the inputs (`previews.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...modalities.paths import read_lines
from ..utils import ConfigError
from .comparison import Comparison, Normalize, unspaced
from .contact_sheet import Sheet
from .judge import annotations_of, judge

LONG = 120
"""Characters beyond which texts need wider columns."""


@dataclass
class ReportRow:
    """inputs: (stream, HTML). prompt: that of the task, empty without one. drawing: of the
    prediction, if there is one."""

    key: str
    comparison: Comparison
    prompt: str
    prediction: Any
    target: Any
    inputs: list[tuple[str, Markup]] = field(default_factory=list)
    drawing: Markup = field(default_factory=Markup)


@dataclass
class SampleGrid:
    """One split's grid. groups: (title, samples). prompt: the one that all rows share. problem:
    why inputs are not shown. sheets: of a retrieval, in place of the samples."""

    label: str
    count: int
    groups: list[tuple[str, list[ReportRow]]]
    prompt: str = ""
    problem: str = ""
    sheets: list[Sheet] = field(default_factory=list)

    @property
    def rows(self) -> list[ReportRow]:
        """All samples of the page."""
        return [sample for _, group in self.groups for sample in group]

    @property
    def grid(self) -> str:
        """How wide a sample is: `full` for words under their times, `wide` for drawings,
        curves, strips of slices and texts longer than a line or two."""
        marks = {name for s in self.rows for name in annotations_of(s.prediction, s.target)}
        if "words" in marks:
            return "full"
        verdicts = [sample.comparison for sample in self.rows]
        long = any(len(text) > LONG for v in verdicts for text in (v.prediction, *v.references))
        wide = ("<svg", 'class="strip"')
        curves = any(mark in html for s in self.rows for _, html in s.inputs for mark in wide)
        return "wide" if long or marks or curves or any(s.drawing for s in self.rows) else ""

    @property
    def marked(self) -> bool:
        """Return whether differing words are marked."""
        return any(sample.comparison.words for sample in self.rows)


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a `predictions-*.jsonl`."""
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}:{number}: {error}; evaluate the run again") from error
    return rows


def select_rows(
    label: str, lines: Sequence[Mapping[str, Any]], count: int, normalize: Normalize = unspaced
) -> SampleGrid:
    """`count` rows, half of them wrong where there are so many, the first of their kind; of rows
    that are neither right nor wrong some that lie evenly apart. normalize: see `judge`."""
    rows = [_sample(str(ln["key"]), ln["prediction"], ln["target"], normalize) for ln in lines]
    wrong = [s for s in rows if s.comparison.correct is False]
    right = [s for s in rows if s.comparison.correct is True]
    open_ = [s for s in rows if s.comparison.correct is None]
    half = count // 2
    wrong_count = min(len(wrong), max(half, count - len(right)))
    kinds = [("Wrong", wrong, wrong_count), ("Right", right, count - wrong_count)]
    remaining = count - sum(min(n, len(members)) for _, members, n in kinds)
    groups = [
        (f"{title}: {_first(min(n, len(members)), len(members))}", members[:n])
        for title, members, n in kinds
        if members[:n]
    ]
    if spread := _spread(open_, remaining):
        selection = f"{len(spread):,} of {len(open_):,}, evenly apart"
        number = selection if len(spread) < len(open_) else f"all {len(open_):,}"
        groups.append((f"Rows: {number}", spread))
    questions = {s.prompt for s in rows}
    shared = questions.pop() if len(questions) == 1 else ""
    for sample in rows if shared else ():
        sample.prompt = ""
    return SampleGrid(label, len(rows), groups, shared)


def _sample(key: str, prediction: Any, target: Any, normalize: Normalize) -> ReportRow:
    comparison = judge(prediction, target, normalize)
    return ReportRow(key, comparison, prompt(target), prediction, target)


def _spread(members: Sequence[ReportRow], count: int) -> list[ReportRow]:
    """So many of them, evenly apart: neighbours (such as steps of one episode) are similar."""
    count = min(count, len(members))
    return [members[len(members) * i // count] for i in range(count)]


def _first(number: int, count: int) -> str:
    return f"all {count:,}" if number == count else f"the first {number:,} of {count:,}"


def prompt(target: Any) -> str:
    """Return the texts of a prompt around its streams, each `◻`; empty without a prompt."""
    texts = target.get("prompt") if isinstance(target, Mapping) else None
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list) or not any(str(text).strip() for text in texts):
        return ""
    return " ◻ ".join(str(text).strip() for text in texts).strip()
