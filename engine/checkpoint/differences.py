"""What may differ between a run and the recipe that it is resumed with.

A resumed run equals one that was never stopped. Whatever would change that is refused, unless the
command names it (`--allow-change train.steps`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...modalities.base import Source
from ...modalities.messages import did_you_mean
from ..data import FAILURES, TRAIN, VALIDATION, ShuffleBuffer, TaskDataset, Wrapped
from ..recipe import Recipe
from ..utils import ConfigError

NEUTRAL = (
    "train.activation_checkpointing",
    "train.log_every",
    "train.profile",
    "train.num_workers",
    "train.track",
    "train.checkpoint",
    "train.process_timeout",
    "cache.samples",
    "env",
)
"""Keys that change no weight: they are logged, and need no permission."""

ABSENT = "not set"
MAX_CELLS = 10_000
"""Rows of which the cells are compared."""


def differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the keys whose values differ: of the run and of the recipe."""
    before, now = _flat(old.to_dict()), _flat(new.to_dict())
    return {
        key: (before.get(key, ABSENT), now.get(key, ABSENT))
        for key in (before | now)
        if before.get(key, ABSENT) != now.get(key, ABSENT)
    }


def is_changed(old: Recipe, new: Recipe) -> bool:
    """Return whether recipes differ in a key that a weight depends on."""
    return not all(is_neutral(key) for key in differences(old, new))


def check_differences(old: Recipe, new: Recipe, allowed: Sequence[str]) -> list[str]:
    """Return a line for each key that differs.

    allowed: keys that may, with all that is below them. Raise ConfigError, a line for each key that
    may not, or for one that is in neither recipe.
    """
    _check_allowed(allowed, {*_flat(old.to_dict()), *_flat(new.to_dict())})
    changed = differences(old, new)
    refused = [key for key in changed if not (is_neutral(key) or covers(allowed, key))]
    if refused:
        lines = [f"{key}: the run has {_text(changed[key][0])}, the recipe " for key in refused]
        raise ConfigError(
            "\n".join(
                f"{line}{_text(changed[key][1])}; change it back, or pass --allow-change {key}"
                for line, key in zip(lines, refused, strict=True)
            )
        )
    return [f"{key}: {_text(a)} before, {_text(b)} from now on" for key, (a, b) in changed.items()]


def _check_allowed(allowed: Sequence[str], keys: Iterable[str]) -> None:
    """Raise ConfigError for an allowed key that names nothing."""
    known: dict[str, None] = {}
    for key in keys:
        parts = key.split(".")
        known |= dict.fromkeys(".".join(parts[:count]) for count in range(1, len(parts) + 1))
        if parts[0] == "tasks" and parts[2:3] == ["data"]:  # what `holdout` keeps has no section
            known |= dict.fromkeys((f"tasks.{parts[1]}.data.{VALIDATION}",))
    for key in allowed:
        if key not in known:
            raise ConfigError(
                f"--allow-change {key}: neither the run nor the recipe has such a key"
                f"{did_you_mean(key, known)}"
            )


def is_neutral(key: str) -> bool:
    """Return whether a key changes no weight: it is about speed, logs or other splits."""
    if covers(NEUTRAL, key):
        return True
    keys = key.split(".")
    return (
        keys[0] == "tasks" and keys[2:3] == ["data"] and bool(set(keys[3:4]) - {TRAIN, VALIDATION})
    )


def covers(allowed: Iterable[str], key: str) -> bool:
    """Return whether a key, or one above it, is among the allowed ones."""
    return any(f"{key}.".startswith(f"{each}.") for each in allowed)


def rows_identity(datasets: Mapping[str, TaskDataset], split: str) -> dict[str, str]:
    """Return, for each task, the number of its rows and a hash of their keys in order and of the
    cells that the task reads, by the place of the split; nothing for streams."""
    identities = {}
    for name, rows in datasets.items():
        if not isinstance(rows.source, ShuffleBuffer):
            count = len(rows.source)
            keys = "\0".join(rows.source.key(i) for i in range(count))
            digest = hashlib.sha256(keys.encode(errors="surrogateescape"))
            digest.update("\0".join(_cells(rows)).encode(errors="surrogateescape"))
            identities[f"tasks.{name}.data.{split}"] = f"{count} rows {digest.hexdigest()[:16]}"
    return identities


def _cells(rows: TaskDataset) -> Iterator[str]:
    """Yield the values of the columns of a task, of rows that are spread evenly if there are many.

    Nothing for sources that make a whole row for one cell: their rows follow from the recipe.
    """
    source, inner = rows.source, rows.source
    while isinstance(inner, Wrapped):
        inner = inner.source
    if type(inner).cell is Source.cell:
        return
    columns = sorted(set(rows.task.columns()) & set(source.columns))
    for index in range(0, len(source), 1 + len(source) // MAX_CELLS):
        for column in columns:
            try:
                yield repr(source.cell(index, column))
            except FAILURES:  # it fails where it is used, by its key
                yield "unreadable"


def check_rows(old: Mapping[str, str], new: Mapping[str, str], allowed: Sequence[str]) -> None:
    """Refuse rows that are others than those of the run, though the recipe is the same."""
    for where in old.keys() & new.keys():
        related = covers(allowed, where) or any(key.startswith(f"{where}.") for key in allowed)
        if old[where] != new[where] and not (related or covers(allowed, "train.seed")):
            counts = [text.partition(" ")[0] for text in (old[where], new[where])]
            raise ConfigError(
                f"{where}: the run has {counts[0]} rows, here are {counts[1]}, with other keys or "
                f"values or in another order; bring the files back, or pass --allow-change {where}"
            )


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings and lists by their keys joined with dots."""
    items: Iterable[tuple[str, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, (list, tuple)) and any(isinstance(x, (Mapping, list)) for x in value):
        items = ((str(i), each) for i, each in enumerate(value))
    else:
        return {path: list(value) if isinstance(value, tuple) else value}
    if not value:  # `lora: {}` is not the same as none
        return {path: {}} if path else {}
    flat: dict[str, Any] = {}
    for key, inner in items:
        flat |= _flat(inner, f"{path}.{key}" if path else str(key))
    return flat


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
