"""Scores beside which a language model is read: of single tokens, and of the untrained model.

They are computed for tasks that name them (`tasks.base.Baselines`), in one process.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...tasks.base import Baselines
from ...tasks.batch import Batch
from ..data import TRAIN, Subset, TaskDataset, batches, limit, load_split, sequential_batches
from ..data import task_dataset as dataset_of
from ..model import compose, resolve_and_fit
from ..utils import ConfigError, RuntimeFailure
from .evaluator import Evaluator

TRAINING_ROWS = 10_000
"""Rows of the training split whose tokens are counted."""


def baseline_metrics(scorer: Evaluator, rows: TaskDataset) -> dict[str, float]:
    """Return `unigram_NAME` and `untrained_NAME` metrics of a task that has them; none otherwise.

    What cannot be scored any more (the training split is not on this machine, the weights that
    training started from are gone) is logged with its reason.
    """
    if not isinstance(rows.task, Baselines):
        return {}
    metrics: dict[str, float] = {}
    for name, score in (("unigram", _unigram), ("untrained", _untrained)):
        try:
            metrics |= score(scorer, rows)
        except (ConfigError, RuntimeFailure, OSError, ValueError) as error:
            if scorer.log is not None:
                scorer.log.info(f"tasks.{rows.name}: {name} baseline not scored: {error}")
    return metrics


def _unigram(scorer: Evaluator, rows: TaskDataset) -> dict[str, float]:
    assert isinstance(rows.task, Baselines)
    plan, encoders = scorer.model.plan, scorer.model.encoders()
    source = load_split(plan, rows.name, TRAIN, refuse_faults=False)
    training = dataset_of(plan, encoders, rows.name, limit(source, TRAINING_ROWS))
    return rows.task.unigram_metrics(_batches(scorer, training), _batches(scorer, rows))


def _batches(scorer: Evaluator, rows: TaskDataset) -> Iterator[Batch]:
    addresses = sequential_batches(rows, scorer.batch_size, 1, 0)
    yield from batches({rows.name: rows}, addresses, scorer.model.collator())


def _untrained(scorer: Evaluator, rows: TaskDataset) -> dict[str, float]:
    assert isinstance(rows.task, Baselines)
    plan = scorer.model.plan
    states = {str(where): part.state() for where, part in plan.fitted().items()}
    model = compose(resolve_and_fit(plan.recipe, states=states))
    other = Evaluator(model.to(scorer.accelerator.device), scorer.batch_size, scorer.accelerator)
    source = Subset(rows.source, np.arange(len(rows.source)))
    dataset = dataset_of(model.plan, model.encoders(), rows.name, source)
    metrics = other.score(dataset, skip=True).metrics
    names = [name for name in rows.task.untrained_metrics if name in metrics]
    return {f"untrained_{name}": metrics[name] for name in names}
