"""Prediction and scoring of a split over all processes, also with one stream shuffled among
rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from ...modalities.base import Source
from ...modalities.paths import FileLister, cell_files
from ...tasks.base import DatasetMetrics
from ...tasks.common import meet
from ..data import (
    SkippedRows,
    TaskDataset,
    Wrapped,
    batches,
    handle_failures,
    sequential_batches,
)
from ..inference import Pipeline
from ..model import Model
from ..utils import RunLogger, RuntimeFailure, autocast, derive_seed


@dataclass
class EvaluationResult:
    """Metrics by name; a prediction, a target and a key for each row."""

    metrics: dict[str, float]
    predictions: list[Any]
    targets: list[dict[str, Any]]
    keys: list[str]
    skipped: SkippedRows


@dataclass
class Evaluator:
    """Predicts and scores rows with one model, `batch_size` rows a process at a time."""

    model: Model
    batch_size: int
    accelerator: Accelerator
    log: RunLogger | None = None

    def score(
        self,
        rows: TaskDataset,
        *,
        limit: int | None = None,
        batch_size: int | None = None,
        skip: bool = False,
        full: bool = False,
        progress: str | None = None,
    ) -> EvaluationResult:
        """Score every row of a split, or the first `limit` batches. skip: continue without rows
        that cannot be read. full: use the task's `eval_options`. progress: show how far it has
        come, under this name. Leaves the model in `eval()`."""
        options = rows.task.eval_options if full else {}
        self.model.eval()
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        addresses = sequential_batches(rows, batch_size or self.batch_size, world, rank)[:limit]
        skipped = SkippedRows()
        scored: list[tuple[str, Any, dict[str, Any]]] = []
        where = f"tasks.{rows.name}, evaluation"
        loaded = batches(
            {rows.name: rows}, addresses, self.model.collator(), device=self.accelerator.device
        )
        for number, batch in enumerate(loaded):
            with autocast(self.accelerator.device, self.model.precision):
                batch, batch_predictions = self.model.predict_rows(
                    batch.to(self.accelerator.device), **options
                )
            skipped.add_cut(batch)
            for line in handle_failures(batch.failed, where, skip, skipped):
                if self.log is not None:
                    self.log.info(line)
            scored += list(zip(batch.keys, batch_predictions, batch.references, strict=True))
            if progress is not None and self.log is not None and self.accelerator.is_main_process:
                self.log.progress(progress, number + 1, len(addresses))
        if world > 1:
            meet()
            scored = gather_object(scored)
        self._report_cut(skipped)
        if not scored:
            raise RuntimeFailure(f"{where}: no row could be scored: {skipped.summary()}")
        keys, predictions = [k for k, _, _ in scored], [p for _, p, _ in scored]
        targets = [t for _, _, t in scored]
        metrics = rows.task.metrics()
        metrics.update(predictions, targets)
        with autocast(self.accelerator.device, self.model.precision):
            extra = (
                rows.task.dataset_metrics(predictions, targets, self._embed)
                if isinstance(rows.task, DatasetMetrics)
                else {}
            )
        values = {name: float(value) for name, value in (metrics.compute() | extra).items()}
        return EvaluationResult(values, predictions, targets, keys, skipped)

    def _report_cut(self, skipped: SkippedRows) -> None:
        """Report the texts that were cut, in all processes."""
        for line in skipped.cut_lines(gather_object):
            if self.log is not None and self.accelerator.is_main_process:
                self.log.info(line)

    def _embed(self, stream: str, values: Sequence[Any]) -> Tensor:
        """Return vectors of raw values; an encoder replaced by a store is moved to the device
        first."""
        self.model.stream(stream).to(self.accelerator.device)
        pipeline, size = Pipeline(self.model), self.batch_size
        parts = [values[i : i + size] for i in range(0, len(values), size)]
        return torch.cat([pipeline.embed({stream: list(part)}) for part in parts]).cpu()


class ShuffledStream(Wrapped):
    """Rows with one stream permuted among rows (a random cyclic permutation)."""

    def __init__(self, source: Source, stream: str, seed: int = 0) -> None:
        super().__init__(source)
        self.stream = stream
        circle = np.random.default_rng(derive_seed(seed, "dealt")).permutation(len(source))
        self.giver = np.empty(len(source), dtype=np.int64)
        self.giver[circle] = np.roll(circle, 1)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.source[index], self.stream: self.cell(index, self.stream)}

    def cell(self, index: int, column: str) -> Any:
        giver = int(self.giver[index]) if column == self.stream else index
        return self.source.cell(giver, column)

    def column_array(self, column: str) -> np.ndarray:
        values = self.source.column_array(column)
        return values[self.giver] if column == self.stream else values

    def fingerprint(self) -> str:
        order = derive_seed(0, *self.giver.tolist())
        return f"{self.source.fingerprint()}[{self.stream} of {order:x}]"

    def cell_key(self, index: int, column: str, files: FileLister = cell_files) -> str:
        giver = int(self.giver[index]) if column == self.stream else index
        return self.source.cell_key(giver, column, files)
