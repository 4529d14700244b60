"""Which rows make which batch: a pure function of (seed, step), so that resuming is arithmetic.

Every process computes the same batches and takes its own share of each; with several tasks a
step is of one task, the same on every process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..utils import ConfigError, derive_seed

WINDOW = 50
"""Batches whose rows are sorted by length together."""


class RowRef(NamedTuple):
    """A row of a task's training data, at an epoch."""

    task: str
    epoch: int
    row: int


class Layout(NamedTuple):
    """The batches of an optimizer step: `accumulation` of each of `processes`."""

    processes: int
    accumulation: int

    @property
    def batches(self) -> int:
        return self.processes * self.accumulation


@dataclass
class BatchSampler:
    """References to the rows of each batch.

    lengths: rows of each task (None: a stream, taken as it comes). batch_size: rows of one
    process in one forward. order: a name of `train.sampler.type`. column: for each task the values
    of the column that `length`, `balanced` and `single_group` look at, None of a row that cannot be
    read. share: of `single_group`, the fraction of batches of one value; the others are of any.
    """

    lengths: Mapping[str, int | None]
    batch_size: int
    seed: int
    gradient_accumulation_steps: int = 1
    num_processes: int = 1
    process_index: int = 0
    order: str = "shuffle"
    task_weight: Callable[[str, int], float] = lambda task, step: 1.0
    column: Mapping[str, Sequence[object]] = field(default_factory=dict)
    share: float = 1.0
    layout: Layout | None = None

    def __post_init__(self) -> None:
        now = Layout(self.num_processes, self.gradient_accumulation_steps)
        self.layout = self.layout or now
        if self.layout.batches != now.batches:
            raise ValueError(f"layout: found {now}, the run began with {self.layout}")

    def task(self, step: int) -> str:
        """Return the task of an optimizer step."""
        names = list(self.lengths)
        weights = np.array([self.task_weight(name, step) for name in names])
        if not weights.any():
            raise ConfigError(
                f"train.task_weights: every task has the weight 0 at step {step}; let one go on"
            )
        draw = (derive_seed(self.seed, "mix", step) / 2**63) * weights.sum()
        return names[min(int(np.searchsorted(np.cumsum(weights), draw, "right")), len(names) - 1)]

    def batches(self, step: int = 0) -> Iterator[list[RowRef]]:
        """Yield this process's batches from an optimizer step on, `gradient_accumulation_steps`
        for each step, without end."""
        assert self.layout is not None
        processes, accumulation = self.layout
        batches_of = dict.fromkeys(self.lengths, 0)
        for earlier in range(step):
            batches_of[self.task(earlier)] += accumulation
        orders: dict[tuple[str, int], np.ndarray] = {}
        while True:
            task = self.task(step)
            for own in range(self.gradient_accumulation_steps):
                turn, process = divmod(own * self.num_processes + self.process_index, processes)
                yield self._batch(task, batches_of[task] + turn, process, orders)
            batches_of[task] += accumulation
            step += 1

    def _batch(
        self, task: str, number: int, process: int, orders: dict[tuple[str, int], np.ndarray]
    ) -> list[RowRef]:
        """Return the batch that a process of the layout takes at a turn."""
        assert self.layout is not None
        length, total = self.lengths[task], self.batch_size * self.layout.processes
        if length is None:
            start = number * total + process * self.batch_size
            return [RowRef(task, 0, i) for i in range(start, start + self.batch_size)]
        epoch, position = divmod(number, max(1, length // total))
        if (task, epoch) not in orders:
            for key in [k for k in orders if k[0] == task]:
                del orders[key]
            orders[task, epoch] = self._order(task, epoch, length)
        order = orders[task, epoch]
        start = position * total + process * self.batch_size
        rows = np.arange(start, start + self.batch_size) % length  # fewer rows than a batch: again
        return [RowRef(task, epoch, int(i)) for i in order[rows]]

    def _order(self, task: str, epoch: int, length: int) -> np.ndarray:
        rng = np.random.default_rng(derive_seed(self.seed, "order", task, epoch))
        shuffled = rng.permutation(length)
        if self.order == "shuffle":
            return shuffled
        assert self.layout is not None
        total = self.batch_size * self.layout.processes
        order = _ORDERS[self.order](shuffled, self.column[task], total, rng)
        return order if self.share == 1 else _mixed(order, shuffled, self.share, total, rng)


def _by_length(
    shuffled: np.ndarray, values: Sequence[object], total: int, rng: np.random.Generator
) -> np.ndarray:
    """Rows of similar length in one batch: sorted within windows of batches, batches shuffled.

    The rows that fill no batch, which an epoch leaves out, are drawn before anything is sorted.
    """
    lengths = np.array([_length(v) for v in values])
    complete = len(shuffled) // total * total
    batches: list[np.ndarray] = []
    for start in range(0, complete, WINDOW * total):
        window = shuffled[start : min(start + WINDOW * total, complete)]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches += [window[i : i + total] for i in range(0, len(window), total)]
    remainder = [shuffled[complete:]]
    return np.concatenate([*(batches[i] for i in rng.permutation(len(batches))), *remainder])


def _length(value: object) -> float:
    """Return the length of a value, or the number that it is; 0 of one that could not be read."""
    if value is None:
        return 0.0
    if isinstance(value, (int, float, np.number)):
        return 0.0 if np.isnan(value) else float(value)
    return float(len(value))  # type: ignore[arg-type]


def _single_group(
    shuffled: np.ndarray, values: Sequence[object], total: int, rng: np.random.Generator
) -> np.ndarray:
    """Each batch of one value, the values in turn: a common one does not show all its rows in
    an epoch, a rare one shows them again, never twice in a batch. Raise ConfigError if a value
    has fewer rows than a batch."""
    groups = _groups(shuffled, values)
    names = sorted(groups, key=str)
    for name in names:
        if len(groups[name]) < total:
            raise ConfigError(
                f"train.sampler: {name!r} has {len(groups[name])} rows, a batch of type: "
                f"single_group takes {total} of one value; lower train.batch_size, or set "
                "type: balanced"
            )
    order: list[int] = []
    batch_number = 0
    while len(order) < len(shuffled):
        for i in rng.permutation(len(names)):
            rows = groups[names[i]]
            start = batch_number * total
            order += [rows[position % len(rows)] for position in range(start, start + total)]
        batch_number += 1
    return np.array(order[: len(shuffled)])


def _mixed(
    pure: np.ndarray, shuffled: np.ndarray, share: float, total: int, rng: np.random.Generator
) -> np.ndarray:
    """Batches of two orders, a share of them of the first, in a random order (KaLM-Embedding, 2025:
    batches that are partly of one task)."""
    count = len(shuffled) // total
    chosen = rng.permutation(count) < round(share * count)
    batches = [
        (pure if is_pure else shuffled)[i * total : (i + 1) * total]
        for i, is_pure in enumerate(chosen)
    ]
    return np.concatenate([*batches, shuffled[count * total :]])


def _balanced(
    shuffled: np.ndarray, values: Sequence[object], total: int, rng: np.random.Generator
) -> np.ndarray:
    """As many rows as there are, every value equally often: rare ones come again."""
    groups = _groups(shuffled, values)
    order: list[int] = []
    round_number = 0
    names = sorted(groups, key=str)
    while len(order) < len(shuffled):
        order += [
            groups[names[i]][round_number % len(groups[names[i]])]
            for i in rng.permutation(len(names))
        ]
        round_number += 1
    return np.array(order[: len(shuffled)])


def _groups(shuffled: np.ndarray, values: Sequence[object]) -> dict[object, list[int]]:
    """Return rows by value. Those without one, which fail when they come, join the largest
    group."""
    groups: dict[object, list[int]] = {}
    for row in shuffled:
        groups.setdefault(values[row], []).append(int(row))
    unknown = groups.pop(None, [])
    if not groups:
        return {None: unknown}
    groups[max(groups, key=lambda value: len(groups[value]))] += unknown
    return groups


_ORDERS: dict[str, Callable[..., np.ndarray]] = {
    "length": _by_length,
    "balanced": _balanced,
    "single_group": _single_group,
}
