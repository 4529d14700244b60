"""Previews of rows: inputs with annotations, and drawings of predictions.

The `preview` of a modality renders a raw value as HTML, with the annotations that it can draw
(words, boxes, a mask). Label streams are drawn on the others, if their modality names the
annotation.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ...modalities.base import Annotations, Fittable, ReadError, Source, StreamingSource
from ...modalities.modality import Modality
from ...tasks.base import ExportsMaps, Task
from ..data import cell_items, load_split
from ..recipe import ResolvedRecipe, load
from .contact_sheet import SHEETS, Sheet, is_ranking, keys_of, sheets
from .judge import annotations_of, form_of
from .samples import ReportRow, SampleGrid

LARGEST = 24_000_000
"""Characters of one split's inputs on a page; later rows are shown without inputs."""


def attach_previews(
    samples: SampleGrid, plan: ResolvedRecipe, run: Path, task: str, split: str
) -> None:
    """Add drawings and inputs to the selected rows; `problem` names the failure."""
    parts = _parts(plan, task)
    by_key = {sample.key: sample for sample in samples.rows}
    rankings = [s for s in samples.rows if is_ranking(s.prediction)][:SHEETS]
    named = {key for sample in rankings for key in keys_of(sample.prediction)}
    try:
        for sample in samples.rows:
            sample.drawing = _drawing(sample, parts)
        rows = _rows(load_split(plan, task, split), {*by_key, *named})
        if named and named <= rows.keys():
            samples.sheets = _sheets(rankings, rows, plan, task)
            return
        budget = LARGEST
        for key, sample in by_key.items():
            if key in rows and budget > 0:
                sample.inputs = _inputs(sample, rows[key], plan, task, run)
                budget -= sum(len(drawn) for _, drawn in sample.inputs)
    except (ValueError, OSError) as error:
        samples.problem = str(error)
        return
    missing = [key for key in by_key if key not in rows]
    without_inputs = [key for key in rows if not by_key[key].inputs]
    if missing:
        samples.problem = (
            f"{len(missing)} rows, {missing[0]!r} the first, are no longer in the data"
        )
    elif without_inputs and budget <= 0:
        samples.problem = f"those of {len(without_inputs)} rows would make the page too large"


def _sheets(
    rankings: Iterable[ReportRow],
    rows: Mapping[str, Mapping[str, Any]],
    plan: ResolvedRecipe,
    task: str,
) -> list[Sheet]:
    """Return the contact sheets of the selected rows."""

    @functools.cache
    def show(key: str, stream: str) -> Markup:
        planned = plan.streams[stream]
        modality, many = planned.modality, planned.many(plan.tasks[task].task.streams[stream])
        (cell, *_) = cell_items(rows[key][stream], many)
        return Markup(load(modality.preview)(load(modality.read)(cell)))

    streams = plan.tasks[task].task.streams
    return [sheet for row in rankings for sheet in sheets(row.key, row.prediction, streams, show)]


def _parts(plan: ResolvedRecipe, task: str) -> dict[str, Fittable]:
    """Return the task's fitted parts, by the name of the argument."""
    start = f"tasks.{task}."
    return {k.removeprefix(start): part for k, part in plan.fitted().items() if k.startswith(start)}


def _drawing(sample: ReportRow, parts: Mapping[str, Fittable]) -> Markup:
    draw = form_of(sample.prediction).draw
    return Markup(load(draw)(sample.prediction, sample.target, parts)) if draw else Markup("")


def _inputs(
    sample: ReportRow, row: Mapping[str, Any], plan: ResolvedRecipe, task: str, run: Path
) -> list[tuple[str, Markup]]:
    """Return (stream, HTML) of input streams, and of label streams that nothing else draws."""
    task_module = plan.tasks[task].task
    modalities = {name: plan.streams[name].modality for name in task_module.streams}
    raw = {
        name: [
            load(modalities[name].read)(value)
            for value in cell_items(row[name], plan.streams[name].many(use))
        ]
        for name, use in task_module.streams.items()
        if name in row
    }
    annotations = annotations_of(sample.prediction, sample.target)
    marks: dict[str, tuple[Any, Any]] = {
        k: (_resolve_run_path(a, run), b) for k, (a, b) in annotations.items()
    }
    marks |= _maps(sample.prediction, task_module, marks)
    drawn_on = {
        n: mark
        for n, use in task_module.streams.items()
        if use.role == "label" and (mark := modalities[n].annotation)
    }
    for name, mark in drawn_on.items():
        marks[mark] = (marks.get(mark, (None, None))[0], raw[name][0])
    labels = {name for name, use in task_module.streams.items() if use.role == "label"}
    drawn = [
        (name, preview(modalities[name], value, marks, row, task_module.streams))
        for name in task_module.streams
        for value in raw[name]
        if name not in drawn_on
    ]
    return without_repeats(drawn, labels)


def preview(
    modality: Modality,
    value: Any,
    marks: Annotations,
    row: Mapping[str, Any],
    used: Collection[str],
) -> Markup:
    """Return the HTML of a raw value with its annotations, and with what else the row says is
    there: the cells `mask`, `box` and `boxes` that no stream reads. used: the task's streams."""
    draw = load(modality.preview)
    found = {
        mark: (None, cell)
        for mark, cell in findings(row, used).items()
        if mark in modality.draws and not {"mask", "map", "boxes", "peak"} & marks.keys()
    }
    if found:
        with contextlib.suppress(ReadError):  # a column of that name may hold anything
            return Markup(draw(value, {**found, **marks}))
    return Markup(draw(value, marks))


def findings(row: Mapping[str, Any], used: Collection[str]) -> dict[str, Any]:
    """Return a row's mask and boxes, by the name of the annotation, that are no stream's cells."""
    found = {}
    for column, mark in (("mask", "mask"), ("box", "boxes"), ("boxes", "boxes")):
        cell = None if column in used else row.get(column)
        if cell is not None and mark == "boxes":
            try:
                boxes = np.array(cell, float)
            except (TypeError, ValueError):
                continue
            cell = (
                boxes.reshape(-1, boxes.shape[-1]).tolist() if boxes.ndim and boxes.size else None
            )
        if cell is not None:
            found[mark] = cell
    return found


def without_repeats(
    drawn: Sequence[tuple[str, Markup]], labels: Collection[str]
) -> list[tuple[str, Markup]]:
    """Return (stream, HTML) without those of label streams that show what stands there already: the
    stream of a judge holds the same pictures as the target."""
    return [
        (name, html)
        for i, (name, html) in enumerate(drawn)
        if name not in labels or html not in [other for _, other in drawn[:i]]
    ]


def _maps(prediction: Any, task: Task, marks: Annotations) -> dict[str, tuple[Any, Any]]:
    """Return the maps of a prediction that the task exports."""
    if not {"map", "mask"} & marks.keys():
        return {}
    maps = task.export_maps(prediction) if isinstance(task, ExportsMaps) else {}
    overlays = {k: {"array": v.numpy(), "affine": m.numpy()} for k, (v, m) in maps.items()}
    return {name: (cell, marks.get(name, (None, None))[1]) for name, cell in overlays.items()}


def _resolve_run_path(value: Any, run: Path) -> Any:
    """Return a file of the run's folder with its whole path; other values unchanged."""
    return str(run / value) if isinstance(value, str) and (run / value).is_file() else value


def _rows(source: Source, keys: set[str]) -> dict[str, dict[str, Any]]:
    rows_by_key: dict[str, dict[str, Any]] = {}
    for key, row in _entries(source, keys):
        rows_by_key.setdefault(key, row)
        if len(rows_by_key) == len(keys):
            break
    return rows_by_key


def _entries(source: Source, keys: set[str]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Return the rows of the keys; rows by index are read only if needed."""
    if isinstance(source, StreamingSource):
        entries = ((source.key(i), row) for i, row in enumerate(source))
        return (pair for pair in entries if pair[0] in keys)
    indices = (i for i in range(len(source)) if source.key(i) in keys)
    return ((source.key(i), source[i]) for i in indices)
