"""A task's metrics on a split, and two readings that a number alone does not give.

Does the model use its input? The score with each stream dealt to other rows stands beside
it. Does the score depend on the batch size? The same rows are scored one by one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...tasks.base import Task
from ..checkpoint import write_card
from ..data import Subset, TaskDataset, load_split, splits, task_dataset
from ..model import FeatureCacher, Model
from ..utils import ConfigError, RunLogger, init_accelerator
from .evaluator import EvaluationResult, Evaluator, ShuffledStream

EVALUATION = "evaluation.json"
BATCH_GAP_ROWS = 64
"""Rows that are scored one by one for the second reading."""


def evaluate(
    model: Model,
    *,
    tasks: Iterable[str] | None = None,
    split: str | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    readings: bool = True,
    log: RunLogger | None = None,
    folder: Path | None = None,
    device: str | None = None,
) -> dict[str, dict[str, float]]:
    """`{task: {metric: value}}` over the recipe's splits that training has not seen.

    The split `test` stands under the task's name, another under `task@split`. With a folder,
    writes `evaluation.json` and a `predictions-*.jsonl` a split. device: see `pick`.
    """
    plan = model.plan
    accelerator = init_accelerator(device)
    scorer = Evaluator(model, batch_size or plan.recipe.train.batch_size, accelerator, log)
    found: dict[str, dict[str, float]] = {}
    for task in tasks or plan.tasks:
        if task not in plan.tasks:
            raise ConfigError(f"there is no task {task!r}; there are: {', '.join(plan.tasks)}")
        for name in [split] if split else splits(plan, task):
            rows = _rows(model, task, name, limit)
            section = plan.recipe.tasks[task].data.get(name)
            skip = section is not None and section.on_error == "skip"
            _fill(scorer, rows)
            scored = scorer.score(rows, skip=skip, full=True)
            label = task if name == "test" else f"{task}@{name}"
            found[label] = scored.metrics | (_input_ablations(scorer, rows) if readings else {})
            if folder is not None and accelerator.is_main_process:
                _write_predictions(folder / f"predictions-{label}.jsonl", rows.task, scored)
    if not found:
        raise ConfigError("no task has a split to evaluate on; add data.test, or say --split")
    if folder is not None and accelerator.is_main_process:
        finite = {t: {m: _finite(v) for m, v in ms.items()} for t, ms in found.items()}
        (folder / EVALUATION).write_text(json.dumps(finite, indent=1) + "\n", encoding="utf-8")
        write_card(model, folder)
    return found


def _finite(value: float) -> float | None:
    """JSON knows no NaN: a metric that is not defined is null."""
    return value if math.isfinite(value) else None


def _rows(model: Model, task: str, split: str, limit: int | None) -> TaskDataset:
    plan = model.plan
    source = load_split(plan, task, split)
    if limit is not None and limit < len(source):
        source = Subset(source, np.arange(limit))
    return task_dataset(plan, model.encoders(), task, source)


def _fill(scorer: Evaluator, rows: TaskDataset) -> None:
    """Use, and fill, the stores that training used; then every part goes to the device."""
    model, device = scorer.model, scorer.accelerator.device
    progress = scorer.log.progress if scorer.log else None
    FeatureCacher(model.plan, model, device, model.precision, scorer.batch_size, progress).attach(
        [rows]
    )
    model.to(device)


def _input_ablations(scorer: Evaluator, rows: TaskDataset) -> dict[str, float]:
    if len(rows.source) < 2:
        return {}
    found: dict[str, float] = {}
    for stream in rows.task.inputs():
        shuffled = replace(rows, source=ShuffledStream(rows.source, stream))
        other = scorer.score(shuffled, skip=True).metrics
        found |= {f"{name}_{stream}_shuffled": value for name, value in other.items()}
    found["batch_gap"] = _batch_gap(scorer, rows)
    return found


def _batch_gap(scorer: Evaluator, rows: TaskDataset) -> float:
    """The largest change of a metric when the same rows are scored one by one, from the signal."""
    first = Subset(rows.source, np.arange(min(BATCH_GAP_ROWS, len(rows.source))))
    plain = task_dataset(scorer.model.plan, scorer.model.encoders(), rows.name, first)
    one = scorer.score(plain, skip=True, batch_size=1).metrics
    many = scorer.score(plain, skip=True, batch_size=max(2, scorer.batch_size)).metrics
    gaps = [abs(one[name] - many[name]) for name in one if math.isfinite(one[name] - many[name])]
    return max(gaps, default=0.0)


def _write_predictions(path: Path, task: Task, scored: EvaluationResult) -> None:
    written = task.format_predictions(scored.predictions, scored.targets, scored.keys)
    lines = (
        json.dumps({"key": key, "prediction": made, "target": target}, ensure_ascii=False)
        for key, made, target in zip(scored.keys, written, scored.targets, strict=True)
    )
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
