"""The report: one self-contained HTML page for one run or several.

It has the recipe, the pipeline, curves, metrics beside those with shuffled inputs, and samples: raw
inputs rendered by their modality, with prediction and reference. Several runs are shown side by
side. Missing parts of a run are noted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..evaluation import EVALUATION, Finding, Table, main_metric, read_table
from ..model import FITTED, load_fitted
from ..recipe import DataSection, Recipe, ResolvedRecipe, load_recipe, plan_recipe
from ..utils import ConfigError, read_metrics, write_page
from .charts import LineChart
from .comparison import format_value
from .curves import Titled, fitted_charts, logged, loss_chart, other_charts, validation_charts
from .diagram import PipelineDiagram, pipeline_diagram
from .previews import attach_previews
from .rollouts import Rollouts, read_rollouts
from .samples import SampleGrid, read_predictions, select_rows

SAMPLES = 24
"""Rows shown of a split."""

_COMMAND = re.compile(r"^Trained by `(.+)`\.$", re.MULTILINE)
_SOFTWARE = re.compile(r"^Made with .+$", re.MULTILINE)


@dataclass(frozen=True)
class RunReport:
    """The values of a run for the template. notes: missing parts. software: the versions it was
    trained with. facts: (name, value). rollouts: of a policy, or None. policy: its task's name.
    types: task -> type."""

    name: str
    command: str
    software: str
    notes: list[str]
    facts: list[tuple[str, str]]
    pipeline: PipelineDiagram
    loss: LineChart | None
    curves: list[Titled]
    others: list[Titled]
    fitted: list[tuple[str, list[Titled]]]
    tables: list[Table]
    rollouts: Rollouts | None
    samples: list[SampleGrid]
    recipe: str
    types: Mapping[str, str] = field(default_factory=dict)
    policy: str = ""

    @property
    def sections(self) -> list[TaskSection]:
        """Return the tasks, each with what there is of it."""
        return [
            TaskSection(
                name,
                kind,
                [table for table in self.tables if table.label.partition("@")[0] == name],
                [grid for grid in self.samples if grid.label.partition("@")[0] == name],
                self.rollouts if name == self.policy else None,
            )
            for name, kind in self.types.items()
        ]


@dataclass(frozen=True)
class TaskSection:
    """What the page shows of one task: the type of its recipe, its splits, and the rollouts of a
    policy."""

    name: str
    type: str
    tables: list[Table]
    samples: list[SampleGrid]
    rollouts: Rollouts | None

    @property
    def headline(self) -> list[Headline]:
        return [_headline(table) for table in self.tables if table.headline]


@dataclass(frozen=True)
class Headline:
    """A table's first metric. shuffled: (stream, value) where it was scored so."""

    label: str
    metric: str
    value: float | None
    margin: float | None
    shuffled: list[tuple[str, float | None]]
    findings: list[Finding]


def _headline(table: Table) -> Headline:
    name, value, shuffled = next(row for row in table.rows if row[0] == table.headline)
    pairs = list(zip(table.streams, shuffled, strict=True))
    return Headline(table.label, name, value, table.margins.get(name), pairs, table.findings)


def write_report(runs: Sequence[Path], out: Path, *, samples: int = SAMPLES) -> Path:
    """Write the page of one run or several, and return its path.

    runs: the runs' folders. samples: rows shown of a split. Raise ConfigError if a folder is no
    run, or one of its files cannot be read.
    """
    if not runs:
        raise ConfigError("report: there is no run; name the folder of one or several")
    names = _names(runs)
    reports = [_run_report(Path(run), name, samples) for run, name in zip(runs, names, strict=True)]
    title = f"Report: {' and '.join(names)}"
    return write_page(out, "report.html.j2", title=title, runs=reports)


def _names(runs: Sequence[Path]) -> list[str]:
    """Return the folders' names, or their paths if two have the same name."""
    names = [Path(run).resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _run_report(run: Path, name: str, count: int) -> RunReport:
    if not (run / "recipe.yaml").is_file():
        raise ConfigError(f"{run}: holds no recipe.yaml; is it a run's folder?")
    recipe = load_recipe(run / "recipe.yaml")
    card = _text(run / "README.md")
    lines = read_metrics(run)
    evaluation = _evaluation(run / EVALUATION)
    notes = [] if card else ["The training has not come to its end: there is no README.md yet."]
    if not lines:
        notes.append("No step was logged: there is nothing to draw.")
    if not evaluation:
        notes.append(f"Not evaluated yet: sensorium evaluate {run}")
    plan = _plan(recipe, run, notes)
    predictions = {label: _predictions(run, label) for label in _labels(run, evaluation)}
    grids = [_grid(label, ln, plan, run, count) for label, ln in predictions.items() if ln]
    return RunReport(
        name=name,
        command=_search(_COMMAND, card, 1),
        software=_search(_SOFTWARE, card, 0),
        notes=notes,
        facts=_facts(recipe, lines),
        pipeline=pipeline_diagram(recipe, card, plan),
        loss=loss_chart(lines),
        curves=validation_charts(lines),
        others=other_charts(lines),
        fitted=[] if plan is None else fitted_charts(plan),
        tables=[
            _table(recipe, plan, label, evaluation[label], predictions) for label in evaluation
        ],
        rollouts=read_rollouts(run),
        samples=grids,
        recipe=_text(run / "recipe.yaml"),
        types={name: section.type for name, section in recipe.tasks.items()},
        policy=_policy(recipe, plan),
    )


def _table(
    recipe: Recipe,
    plan: ResolvedRecipe | None,
    label: str,
    values: dict[str, float | None],
    predictions: Mapping[str, list[dict[str, Any]]],
) -> Table:
    streams, metric = list(recipe.inputs), _first_metric(recipe, plan, label)
    return read_table(label, values, streams, metric, len(predictions[label]) or None)


def _first_metric(recipe: Recipe, plan: ResolvedRecipe | None, label: str) -> str | None:
    if plan is not None and label.partition("@")[0] in plan.tasks:
        return main_metric(plan, label)
    return recipe.train.validate_.metric if recipe.train.validate_ else None


def _policy(recipe: Recipe, plan: ResolvedRecipe | None) -> str:
    """Return the name of the task that acts; empty without one."""
    if recipe.env is not None and recipe.env.task is not None:
        return recipe.env.task
    tasks = {} if plan is None else plan.tasks
    return next((name for name, planned in tasks.items() if planned.task.ability == "act"), "")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _search(pattern: re.Pattern[str], text: str, group: int) -> str:
    match = pattern.search(text)
    return match[group] if match else ""


def _evaluation(path: Path) -> dict[str, dict[str, float | None]]:
    try:
        metrics: dict[str, dict[str, float | None]] = json.loads(_text(path) or "{}")
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: {error}; evaluate the run again") from error
    return metrics


def _plan(recipe: Recipe, run: Path, notes: list[str]) -> ResolvedRecipe | None:
    """Return the plan with its fitted parts, which opens the data; without it the page has no
    inputs and a note."""
    try:
        plan = plan_recipe(recipe)
    except ConfigError as error:
        notes.append(f"The inputs cannot be shown here: {error}")
        return None
    try:
        if (run / FITTED).is_dir():
            load_fitted(plan, run / FITTED)
    except ConfigError as error:
        notes.append(f"The fitted parts cannot be shown here: {error}")
    return plan


def _labels(run: Path, evaluation: Mapping[str, Any]) -> list[str]:
    """Return `task` and `task@split`, those of the evaluation first."""
    files = sorted(run.glob("predictions-*.jsonl"))
    return list(dict.fromkeys([*evaluation, *(f.stem.removeprefix("predictions-") for f in files)]))


def _predictions(run: Path, label: str) -> list[dict[str, Any]]:
    path = run / f"predictions-{label}.jsonl"
    return read_predictions(path) if path.is_file() else []


def _grid(
    label: str,
    lines: Sequence[Mapping[str, Any]],
    plan: ResolvedRecipe | None,
    run: Path,
    count: int,
) -> SampleGrid:
    task, _, split = label.partition("@")
    if plan is None or task not in plan.tasks:
        return select_rows(label, lines, count)
    grid = select_rows(label, lines, count, plan.tasks[task].task.comparable)
    attach_previews(grid, plan, run, task, split or "test")
    return grid


def _facts(recipe: Recipe, lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    settings = recipe.train
    done = max((line["step"] for line in lines), default=0)
    stages = len({line["stage"] for line in lines if "stage" in line})
    of = f"in {stages} stages" if stages else f"of {settings.steps:,}"
    facts = [
        ("Steps", f"{done:,} {of}"),
        ("Rows a step", f"{settings.batch_size * settings.gradient_accumulation_steps:,}"),
        ("Learning rate", f"{settings.optimizer.lr:g}, {settings.schedule.type}"),
        ("Precision", settings.precision),
        ("Seed", str(settings.seed)),
    ]
    speeds = sorted(y for points in logged(lines, "samples_per_s").values() for _, y in points)
    if speeds:
        facts.append(("Median speed", f"{speeds[len(speeds) // 2]:,.0f} samples/s"))
    for task, section in recipe.tasks.items():
        parts = [f"{split} from {_source(data)}" for split, data in section.data.items()]
        facts.append((f"Data of {task}", "; ".join(parts)))
    return facts


def _source(data: DataSection) -> str:
    """Describe a data section: its source, options, and held-out or skipped rows."""
    holdout = data.held_out
    by = f" by {holdout.by}" if holdout and holdout.by else ""
    holdout_text = f"{holdout.share}{by}" if holdout else None
    options = {
        **data.options,
        "where": data.where or None,
        "holdout": holdout_text,
        "limit": data.limit,
    }
    listed = [
        f"{name} {format_value(value)}" for name, value in options.items() if value is not None
    ]
    return f"{data.source} ({', '.join(listed)})" if listed else data.source
