"""A task's metrics on a split, and two readings that a number alone does not give.

Does the model use its input? The score with each stream dealt to other rows stands beside
it. Does the score depend on the batch size? The same rows are scored one by one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from ..modalities.base import Source
from .compose import Model
from .data import Collate, Rows, batches, in_order, readers, settle_failures
from .errors import RecipeError
from .log import Log
from .parts import derive
from .prefill import Filler
from .rows import Skipped, Subset, open_split, splits

EVALUATION = "evaluation.json"
PROBED = 64
"""Rows that are scored one by one for the second reading."""


@dataclass
class Score:
    """metrics by name; a prediction, a target and a key for each row."""

    metrics: dict[str, float]
    predictions: list[Any]
    targets: list[dict[str, Any]]
    keys: list[str]
    skipped: Skipped


def score(
    model: Model,
    rows: Rows,
    batch_size: int,
    accelerator: Accelerator,
    limit: int | None = None,
    *,
    skip: bool = False,
    log: Log | None = None,
) -> Score:
    """Predict every row of a split (or `limit` batches), over all processes, and score it."""
    model.eval()
    world, rank = accelerator.num_processes, accelerator.process_index
    addresses = in_order(rows, batch_size, world, rank)[:limit]
    collate = Collate({name: model.stream(name).encoder for name in model.streams})
    skipped = Skipped()
    found: list[tuple[str, Any, dict[str, Any]]] = []
    for batch in batches({rows.name: rows}, addresses, collate):
        where = f"tasks.{rows.name}, evaluation"
        for line in settle_failures(batch, where, skip, skipped):
            if log is not None:
                log.say(line)
        if len(batch):
            with accelerator.autocast():
                made = model.predict(batch.to(accelerator.device))
            found += list(zip(batch.keys, made, batch.targets, strict=True))
    if world > 1:
        found = gather_object(found)
    metrics = rows.task.metrics()
    keys, predictions = [k for k, _, _ in found], [p for _, p, _ in found]
    targets = [t for _, _, t in found]
    metrics.update(predictions, targets)
    values = {name: float(value) for name, value in metrics.compute().items()}
    return Score(values, predictions, targets, keys, skipped)


class Dealt(Source):
    """Rows whose cell of one stream is another row's: dealt round a random circle."""

    def __init__(self, source: Source, stream: str, seed: int = 0) -> None:
        self.source, self.stream, self.columns = source, stream, source.columns
        circle = np.random.default_rng(derive(seed, "dealt")).permutation(len(source))
        self.giver = np.empty(len(source), dtype=np.int64)
        self.giver[circle] = np.roll(circle, 1)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        given = self.source[int(self.giver[index])][self.stream]
        return {**self.source[index], self.stream: given}

    def key(self, index: int) -> str:
        return self.source.key(index)

    def identity(self, index: int, column: str) -> str:
        giver = int(self.giver[index]) if column == self.stream else index
        return self.source.identity(giver, column)


def evaluate(
    model: Model,
    *,
    tasks: Iterable[str] | None = None,
    split: str | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    readings: bool = True,
    log: Log | None = None,
    folder: Path | None = None,
) -> dict[str, dict[str, float]]:
    """`{task: {metric: value}}` over the recipe's splits that training has not seen.

    The split `test` stands under the task's name, another under `task@split`. With a folder,
    writes `evaluation.json` and a `predictions-*.jsonl` a split.
    """
    plan = model.plan
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), device_placement=False)
    model.to(accelerator.device)
    size = batch_size or plan.recipe.train.batch_size
    found: dict[str, dict[str, float]] = {}
    for task in tasks or plan.tasks:
        if task not in plan.tasks:
            raise RecipeError(f"there is no task {task!r}; there are: {', '.join(plan.tasks)}")
        for name in [split] if split else splits(plan, task):
            rows = _rows(model, task, name, limit)
            skip = plan.recipe.tasks[task].data.get(name)
            scored = _read(
                model,
                rows,
                size,
                accelerator,
                readings,
                log,
                bool(skip and skip.on_error == "skip"),
            )
            label = task if name == "test" else f"{task}@{name}"
            found[label] = scored.metrics
            if folder is not None and accelerator.is_main_process:
                _write_predictions(folder / f"predictions-{label}.jsonl", scored)
    if not found:
        raise RecipeError("no task has a split to evaluate on; add data.test, or say --split")
    if folder is not None and accelerator.is_main_process:
        (folder / EVALUATION).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def _rows(model: Model, task: str, split: str, limit: int | None) -> Rows:
    plan = model.plan
    encoders = {name: model.stream(name).encoder for name in model.streams}
    source = open_split(plan, task, split)
    if limit is not None and limit < len(source):
        source = Subset(source, np.arange(limit))
    return Rows(task, plan.tasks[task].task, source, readers(plan, encoders, augment=False))


def _read(
    model: Model,
    rows: Rows,
    size: int,
    accelerator: Accelerator,
    readings: bool,
    log: Log | None,
    skip: bool,
) -> Score:
    """The score of a split, with both readings among its metrics."""
    progress = log.filling if log else None
    precision = model.plan.recipe.train.precision
    filler = Filler(model.plan, model, accelerator.device, precision, size, progress)
    filler.attach([rows])
    model.to(accelerator.device)
    found = score(model, rows, size, accelerator, skip=skip, log=log)
    if not readings or len(found.keys) < 2:
        return found
    metrics = dict(found.metrics)
    for stream in rows.task.streams:
        dealt = Rows(rows.name, rows.task, Dealt(rows.source, stream), rows.readers)
        other = score(model, dealt, size, accelerator, skip=True).metrics
        metrics |= {f"{name}_{stream}_shuffled": value for name, value in other.items()}
    metrics["batch_gap"] = _batch_gap(model, rows, size, accelerator)
    found.metrics = metrics
    return found


def _batch_gap(model: Model, rows: Rows, size: int, accelerator: Accelerator) -> float:
    """The largest change of a metric when the same rows are scored one by one, from the signal."""
    encoders = {name: model.stream(name).encoder for name in model.streams}
    first = Subset(rows.source, np.arange(min(PROBED, len(rows.source))))
    plain = Rows(rows.name, rows.task, first, readers(model.plan, encoders, augment=False))
    one = score(model, plain, 1, accelerator, skip=True).metrics
    many = score(model, plain, max(2, size), accelerator, skip=True).metrics
    gaps = [abs(one[name] - many[name]) for name in one if np.isfinite(one[name] - many[name])]
    return max(gaps, default=0.0)


def _write_predictions(path: Path, scored: Score) -> None:
    lines = (
        json.dumps({"key": key, "prediction": made, "target": target}, ensure_ascii=False)
        for key, made, target in zip(scored.keys, scored.predictions, scored.targets, strict=True)
    )
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
