"""What stands on a command line, as the rows that a task is asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import RecipeError, did_you_mean
from .hub import Pipeline


def ask(
    pipeline: Pipeline, words: Sequence[str], *, task: str | None, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A dict a row: its inputs, and the prediction. Files go to the task's only stream."""
    tasks = pipeline.model.plan.tasks
    if task is None and len(tasks) > 1:
        raise RecipeError(f"--task: there are {', '.join(tasks)}; say which")
    name = task or next(iter(tasks))
    if name not in tasks:
        raise RecipeError(f"--task: there is no {name!r}{did_you_mean(name, tasks)}")
    streams = tasks[name].task.streams
    known = {*streams, *tasks[name].task.columns()}
    files: list[str] = []
    named: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in known:
            named.setdefault(key, []).append(value)
        elif equals and key.isidentifier() and not Path(word).exists():
            raise RecipeError(f"{word}: {name} takes no {key!r}{did_you_mean(key, known)}")
        else:
            files.append(word)
    if files:
        free = [stream for stream in streams if stream not in named]
        if len(free) != 1:
            raise RecipeError(
                f"{files[0]}: for which stream? write NAME={files[0]}, NAME one of "
                f"{', '.join(streams)}"
            )
        named[free[0]] = files
    inputs = {key: values if len(values) > 1 else values[0] for key, values in named.items()}
    made = pipeline.generate(name, options=options, **inputs)
    rows = made if isinstance(made, list) else [made]
    return [
        {**{k: v[i] if isinstance(v, list) else v for k, v in inputs.items()}, "prediction": row}
        for i, row in enumerate(rows)
    ]
