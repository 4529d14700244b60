"""Validation while training: the metrics of held-out rows, the best weights, an early end."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...modalities.messages import did_you_mean
from ..checkpoint import BEST, changing_tensors, read_tensors, restore, write_tensors
from ..data import TaskDataset
from ..evaluation import Evaluator
from ..model import Model
from ..recipe import Validate
from ..utils import ConfigError, RunLogger, fork_rng, whole_tensors


@dataclass
class Validator:
    """whole: a context in which the model can be used. state: the best value, its step, and how
    many validations ago it was; goes into the checkpoint."""

    rule: Validate
    rows: dict[str, TaskDataset]
    model: Model
    scorer: Evaluator
    folder: Path
    log: RunLogger
    whole: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    state: dict[str, Any] = field(default_factory=dict)

    def check_metric_exists(self) -> None:
        """Refuse a `metric` that no task has before the first step: one batch is scored."""
        if self.rule.metric is not None:
            name = self.rule.metric.partition("/")[0]
            self._best(self._score({name: self.rows[name]}, 1))

    def run(self, step: int) -> bool:
        """Validate after a step; True where training should end early."""
        metrics = self._score(self.rows, self.rule.batches)
        self.log.write({"step": step, "validation": metrics})
        flat = _flatten(metrics)
        self.log.info(f"step {step}: " + ", ".join(f"{k} {v:.4g}" for k, v in flat.items()))
        return self.rule.metric is not None and self._better(step, self._best(metrics))

    def _score(
        self, datasets: dict[str, TaskDataset], limit: int | None
    ) -> dict[str, dict[str, float]]:
        with fork_rng(), self.whole():
            metrics = {
                n: self.scorer.score(rows, limit=limit).metrics for n, rows in datasets.items()
            }
        self.model.train()
        return metrics

    def _best(self, metrics: dict[str, dict[str, float]]) -> float:
        flat, best = _flatten(metrics), self.rule.metric or ""
        if best not in flat:
            raise ConfigError(
                f"train.validate.metric: no metric is called {best!r}{did_you_mean(best, flat)}"
            )
        return flat[best]

    def _better(self, step: int, value: float) -> bool:
        old = self.state.get("value")
        better = (
            old is None or math.isnan(old) or (value < old if self.rule.minimizes else value > old)
        )
        if better:
            self.state = {"value": value, "step": step, "since": 0}
            tensors = whole_tensors(changing_tensors(self.model))
            if self.scorer.accelerator.is_main_process:
                write_tensors(self.folder / BEST, tensors)
        else:
            self.state["since"] += 1
        return self.ended

    @property
    def ended(self) -> bool:
        """Whether the metric has been no better for as long as `patience` allows."""
        patience = self.rule.patience
        return patience is not None and self.state.get("since", 0) >= patience

    @property
    def best(self) -> Path | None:
        """The file of the best weights so far."""
        path = self.folder / BEST
        return path if self.state and path.is_file() else None

    def restore_best(self) -> None:
        """Put the best weights back into the model, where there are any."""
        best = self.best
        if best is None:
            return
        with torch.no_grad():
            restore(self.model, read_tensors(best), str(best))
        self.log.info(f"kept the weights of step {self.state['step']} ({self.state['value']:.4g})")


def _flatten(metrics_of: dict[str, dict[str, float]]) -> dict[str, float]:
    """Metrics as `task/metric`."""
    return {f"{t}/{m}": value for t, metrics in metrics_of.items() for m, value in metrics.items()}
