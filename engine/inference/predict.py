"""Rows for prediction from the arguments of a command line."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...modalities.messages import did_you_mean
from ..recipe import load
from ..utils import ConfigError, make_folder
from .export_maps import output_stem, write_maps, write_signals
from .pipeline import Pipeline
from .rows import rows_of

logger = logging.getLogger(__name__)


def predict_files(
    pipeline: Pipeline,
    words: Sequence[str],
    *,
    task: str | None,
    options: Mapping[str, Any],
    folder: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield a dict a row: its inputs, and the prediction. Files go to the task's only stream. A
    folder is read as the cells in it, see `Modality.cells`.

    A row that cannot be read is logged, and has no dict; ConfigError if no row can be. folder:
    maps among the predictions are written into it as files."""
    name, rows, chosen = rows_of_words(pipeline, words, task)
    files_of = _MapFiles(pipeline, name, folder) if folder is not None else None
    failed: list[str] = []
    predictions = pipeline.predict_rows(name, rows, chosen, options)
    for index, (row, (prediction, failure)) in enumerate(zip(rows, predictions, strict=True)):
        if failure is not None:
            failed.append(failure)
            if len(rows) > 1:  # else the error names it
                where = input_name(index, row, failure)
                logger.warning("%s: %s: %s", name, where, failure)
            continue
        if files_of is not None:
            prediction = files_of.write(index, row, prediction)
        yield {**row, "prediction": prediction}
    if failed and len(failed) == len(rows):
        raise ConfigError(f"{name}: none of the {len(rows)} inputs could be used; {failed[0]}")
    if failed:
        logger.warning("%d of %d inputs could not be used", len(failed), len(rows))


def input_name(index: int, row: Mapping[str, Any], failure: str) -> str:
    """Return the number of an input, with its file or text where the failure does not name it."""
    texts = [cell for cell in row.values() if isinstance(cell, str) and cell]
    if not texts or any(text in failure for text in texts):
        return f"input {index + 1}"
    text = " ".join(texts[0].split())
    return f"input {index + 1} ({text if len(text) <= 120 else text[:117] + '...'})"


def rows_of_words(
    pipeline: Pipeline, words: Sequence[str], task: str | None
) -> tuple[str, list[dict[str, Any]], list[str]]:
    """Return the task, the rows that the words of a command line describe, and the streams that
    they give. Raise ConfigError for an unknown task, stream or column."""
    tasks = pipeline.model.plan.tasks
    if task is None and len(tasks) > 1:
        raise ConfigError(f"--task: there are {', '.join(tasks)}; name one")
    name = task or next(iter(tasks))
    if name not in tasks:
        raise ConfigError(f"--task: there is no {name!r}{did_you_mean(name, tasks)}")
    named = _named_inputs(pipeline, name, words)
    streams = tasks[name].task.streams
    plans = pipeline.model.plan.streams
    many = {stream for stream, use in streams.items() if plans[stream].many(use)}
    inputs = {k: v if len(v) > 1 or k in many else v[0] for k, v in named.items()}
    rows, _ = rows_of(inputs, many)
    return name, rows, pipeline.streams_of(name, inputs)


def _named_inputs(pipeline: Pipeline, task: str, words: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of a task's streams and columns from words `NAME=VALUE` and files, which
    belong to the one stream that no word names. Raise ConfigError for any other word."""
    built = pipeline.model.plan.tasks[task].task
    streams, names = built.streams, {*built.streams, *built.columns()}
    files: list[str] = []
    named: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not word:
            raise ConfigError("an input is empty; expected a file, a folder or NAME=VALUE")
        if equals and key in names:
            named.setdefault(key, []).append(value)
        elif equals and key.isidentifier() and not Path(word).exists():
            raise ConfigError(f"{word}: {task} takes no {key!r}{did_you_mean(key, names)}")
        else:
            files.append(word)
    if files:
        free = [s for s in built.inputs() if s not in named]
        if not streams:
            columns = " or ".join(f"{column}=VALUE" for column in sorted(names))
            cure = f"write {columns}" if columns else "leave it out"
            raise ConfigError(f"{files[0]}: {task} reads no stream; {cure}")
        if len(free) != 1:
            raise ConfigError(
                f"{files[0]}: for which stream? write NAME={files[0]}, NAME one of "
                f"{', '.join(streams)}"
            )
        named[free[0]] = files
    for stream in named.keys() & streams.keys():
        named[stream] = _expanded(pipeline, stream, named[stream])
    return named


def _expanded(pipeline: Pipeline, stream: str, words: Sequence[str]) -> list[str]:
    """Return words with folders replaced by the cells in them.

    A word that names no file for the stream's modality (a text) stays unchanged."""
    modality, cells = pipeline.model.plan.streams[stream].modality, list[str]()
    names_files = pipeline.names_files(stream)
    for word in words:
        if not (names_files and word and Path(word).is_dir()):
            cells.append(word)
            continue
        inner = [str(cell) for cell in load(modality.cells)(Path(word))]
        cells += inner or [word]  # which fails where it is read
    return cells


class _MapFiles:
    """Predictions whose maps are files of a folder, each under its own name."""

    def __init__(self, pipeline: Pipeline, task: str, folder: Path) -> None:
        make_folder(folder)
        self.pipeline, self.task, self.folder = pipeline, task, folder
        self.streams, self.used_stems = pipeline.model.plan.tasks[task].task.inputs(), set[str]()

    def write(self, index: int, row: Mapping[str, Any], prediction: Any) -> Any:
        """Return a row's prediction, its signals and maps written and named."""
        stem = output_stem(row[self.streams[0]] if self.streams else None, index)
        stem = f"{stem}-{index}" if stem in self.used_stems else stem
        self.used_stems.add(stem)
        prediction = write_signals(prediction, self.folder / stem)
        return write_maps(self.pipeline, self.task, row, prediction, self.folder / stem)
