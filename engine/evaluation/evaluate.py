"""Metrics of a task on a split, with ablations and baselines.

Does the model use its input? The score with each stream shuffled among rows is given beside it.
Does the score depend on the batch size? The same rows are scored one by one. Has a language model
learned? Its untrained state and a model of single tokens are scored on the same rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...tasks.base import Task
from ..checkpoint import write_card
from ..data import Subset, TaskDataset, count_rows, load_split, splits, task_dataset
from ..model import FeatureCacher, Model, read_json
from ..recipe import ResolvedRecipe
from ..utils import (
    ConfigError,
    RunLogger,
    RuntimeFailure,
    check_folder,
    init_accelerator,
    write_json,
    write_text,
)
from .baselines import baseline_metrics
from .evaluator import EvaluationResult, Evaluator, ShuffledStream
from .format import format_evaluation, input_streams, metric_names
from .input_use import main_metric, read_table
from .margins import margins

EVALUATION = "evaluation.json"
BATCH_GAP_ROWS = 64
"""Rows that are scored one by one."""


def evaluate(
    model: Model,
    *,
    tasks: Iterable[str] | None = None,
    split: str | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    input_ablation: bool = True,
    intervals: bool = False,
    log: RunLogger | None = None,
    folder: Path | None = None,
    device: str | None = None,
) -> dict[str, dict[str, float]]:
    """Return `{task: {metric: value}}` over the recipe's splits other than `train`.

    The split `test` is listed under the task's name, another under `task@split`. With a folder,
    write `evaluation.json` and a `predictions-*.jsonl` for each split; entries of other tasks and
    splits are kept. The first `limit` rows are written under separate names,
    `limit8-evaluation.json`. input_ablation: also score with shuffled inputs and row by row, and
    language models beside their baselines.
    intervals: with the margin of error of each metric (`margins.py`). device: see `pick`.
    """
    plan = model.plan
    if folder is not None:
        check_folder(folder, "evaluate")
    accelerator = init_accelerator(device)
    scorer = Evaluator(model, batch_size or plan.recipe.train.batch_size, accelerator, log)
    metrics: dict[str, dict[str, float]] = {}
    predictions: dict[str, str] = {}
    for task in tasks or plan.tasks:
        if task not in plan.tasks:
            raise ConfigError(f"there is no task {task!r}; there are: {', '.join(plan.tasks)}")
        for name in [split] if split else splits(plan, task):
            rows = _rows(model, task, name, limit)
            section = plan.recipe.tasks[task].data.get(name)
            skip = section is not None and section.on_error == "skip"
            if log is not None:
                log.info(f"tasks.{task}.data.{name}: {count_rows(rows.source)}")
            _fill(scorer, rows)
            scored = scorer.score(rows, skip=skip, full=True, progress=f"evaluate {task}@{name}")
            label = task if name == "test" else f"{task}@{name}"
            ablations = _input_ablations(scorer, rows) if input_ablation else {}
            errors = margins(rows.task, scored.predictions, scored.targets) if intervals else {}
            baselines = baseline_metrics(scorer, rows) if input_ablation else {}
            metrics[label] = scored.metrics | baselines | errors | ablations
            predictions[label] = _prediction_lines(rows.task, scored)
            if log is not None and accelerator.is_main_process:
                _log_findings(log, plan, label, metrics[label], len(scored.keys))
    if not metrics:
        raise ConfigError("no task has a split to evaluate on; add data.test, or pass --split")
    if folder is not None and accelerator.is_main_process:
        try:
            for label, lines in predictions.items():
                write_text(folder / _limited(f"predictions-{label}.jsonl", limit), lines)
            _write_evaluation(folder / _limited(EVALUATION, limit), metrics, plan)
            write_card(model, folder)
        except RuntimeFailure:  # show the metrics, which may have taken hours
            if log is not None:
                log.info(format_evaluation(metrics, input_streams(plan), metric_names(plan)))
            raise
    return metrics


def _log_findings(
    log: RunLogger, plan: ResolvedRecipe, label: str, values: Mapping[str, float], count: int
) -> None:
    """Log whether the task uses its streams, and whether its metrics depend on the batch size."""
    defined = {name: _finite(value) for name, value in values.items()}
    streams = input_streams(plan)[label.partition("@")[0]]
    for finding in read_table(label, defined, streams, main_metric(plan, label), count).findings:
        log.info(f"{label}: {finding.text}")


def _limited(name: str, limit: int | None) -> str:
    """Return the file name for the first rows only, which never replaces that of all rows."""
    return name if limit is None else f"limit{limit}-{name}"


def _write_evaluation(
    path: Path, metrics_of: Mapping[str, Mapping[str, float]], plan: ResolvedRecipe
) -> None:
    """Write metrics, beside those of tasks and splits that were not evaluated now. Ablations of an
    earlier evaluation are kept, since the weights are the same."""
    before = read_json(path) if path.is_file() else {}
    merged = {label: m for label, m in before.items() if label.partition("@")[0] in plan.tasks}
    for label, metrics in metrics_of.items():
        finite = {name: _finite(value) for name, value in metrics.items()}
        merged[label] = {**merged.get(label, {}), **finite}
    write_json(path, merged)


def _finite(value: float) -> float | None:
    """Return a number, or None for a metric that is not defined: JSON has no NaN."""
    return value if math.isfinite(value) else None


def _rows(model: Model, task: str, split: str, limit: int | None) -> TaskDataset:
    plan = model.plan
    source = load_split(plan, task, split)
    if limit is not None and limit < len(source):
        source = Subset(source, np.arange(limit))
    return task_dataset(plan, model.encoders(), task, source)


def _fill(scorer: Evaluator, rows: TaskDataset) -> None:
    """Use and fill the stores that training used, then move all parts to the device."""
    model, device = scorer.model, scorer.accelerator.device
    progress = scorer.log.progress if scorer.log else None
    FeatureCacher(model.plan, model, device, model.precision, scorer.batch_size, progress).attach(
        [rows]
    )
    model.to(device)


def _input_ablations(scorer: Evaluator, rows: TaskDataset) -> dict[str, float]:
    if len(rows.source) < 2:
        return {}
    ablations: dict[str, float] = {}
    for stream in (s for s in rows.task.inputs() if s not in rows.task.self_supervised):
        shuffled = replace(rows, source=ShuffledStream(rows.source, stream))
        other = scorer.score(
            shuffled, skip=True, progress=f"{rows.name}, {stream} shuffled"
        ).metrics
        ablations |= {f"{name}_{stream}_shuffled": value for name, value in other.items()}
    ablations["batch_gap"] = _batch_gap(scorer, rows)
    return ablations


def _batch_gap(scorer: Evaluator, rows: TaskDataset) -> float:
    """Return the largest change of a metric if the same rows are scored one by one, from the
    signal."""
    first = Subset(rows.source, np.arange(min(BATCH_GAP_ROWS, len(rows.source))))
    dataset = task_dataset(scorer.model.plan, scorer.model.encoders(), rows.name, first)
    one_by_one = scorer.score(dataset, skip=True, batch_size=1).metrics
    batched = scorer.score(dataset, skip=True, batch_size=max(2, scorer.batch_size)).metrics
    gaps = [
        abs(one_by_one[name] - batched[name])
        for name in one_by_one
        if math.isfinite(one_by_one[name] - batched[name])
    ]
    return max(gaps, default=0.0)


def _prediction_lines(task: Task, scored: EvaluationResult) -> str:
    """Return one JSON line a row: its key, the prediction and the target."""
    formatted = task.format_predictions(scored.predictions, scored.targets, scored.keys)
    lines = (
        json.dumps({"key": key, "prediction": prediction, "target": target}, ensure_ascii=False)
        for key, prediction, target in zip(scored.keys, formatted, scored.targets, strict=True)
    )
    return "".join(f"{line}\n" for line in lines)
