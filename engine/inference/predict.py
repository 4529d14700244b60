"""Rows for prediction from the arguments of a command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...modalities.messages import did_you_mean
from ..utils import ConfigError, make_folder
from .export_maps import output_stem, write_maps
from .pipeline import Pipeline, rows_of


def predict_files(
    pipeline: Pipeline,
    words: Sequence[str],
    *,
    task: str | None,
    options: Mapping[str, Any],
    folder: Path | None = None,
) -> list[dict[str, Any]]:
    """A dict a row: its inputs, and the prediction. Files go to the task's only stream.

    folder: maps among the predictions are written into it as files."""
    tasks = pipeline.model.plan.tasks
    if task is None and len(tasks) > 1:
        raise ConfigError(f"--task: there are {', '.join(tasks)}; say which")
    name = task or next(iter(tasks))
    if name not in tasks:
        raise ConfigError(f"--task: there is no {name!r}{did_you_mean(name, tasks)}")
    streams = tasks[name].task.streams
    known = {*streams, *tasks[name].task.columns()}
    files: list[str] = []
    named: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in known:
            named.setdefault(key, []).append(value)
        elif equals and key.isidentifier() and not Path(word).exists():
            raise ConfigError(f"{word}: {name} takes no {key!r}{did_you_mean(key, known)}")
        else:
            files.append(word)
    if files:
        free = [s for s in tasks[name].task.inputs() if s not in named]
        if not streams:
            columns = " or ".join(f"{column}=VALUE" for column in sorted(known))
            cure = f"write {columns}" if columns else "leave it out"
            raise ConfigError(f"{files[0]}: {name} reads no stream; {cure}")
        if len(free) != 1:
            raise ConfigError(
                f"{files[0]}: for which stream? write NAME={files[0]}, NAME one of "
                f"{', '.join(streams)}"
            )
        named[free[0]] = files
    many = {stream for stream, use in streams.items() if use.many}
    inputs = {k: v if len(v) > 1 or k in many else v[0] for k, v in named.items()}
    made = pipeline.generate(name, inputs, options=options)
    rows, several = rows_of(inputs, many)
    made = made if several else [made]
    if folder is not None:
        made = _in_files(pipeline, name, rows, made, folder)
    return [{**row, "prediction": said} for row, said in zip(rows, made, strict=True)]


def _in_files(
    pipeline: Pipeline,
    task: str,
    rows: Sequence[Mapping[str, Any]],
    made: Sequence[Any],
    folder: Path,
) -> list[Any]:
    """Return predictions with their maps as files of the folder, under distinct names."""
    make_folder(folder)
    streams, taken, written = pipeline.model.plan.tasks[task].task.inputs(), set[str](), []
    for index, (row, said) in enumerate(zip(rows, made, strict=True)):
        stem = output_stem(row[streams[0]] if streams else None, index)
        stem = f"{stem}-{index}" if stem in taken else stem
        taken.add(stem)
        written.append(write_maps(pipeline, task, row, said, folder / stem))
    return written
