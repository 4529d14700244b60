"""Signals and maps among predictions, written as files.

A generated signal is the bytes of a file, as the text `data:image/png;base64,...`. A map (a mask, a
similarity) becomes a file of the signal it lies over.

A modality that can write them has a `save`: `(path without suffix, values, matrix, raw value) ->
path`; the raw value defines the space of the file.
"""

from __future__ import annotations

import base64
import mimetypes
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...tasks.base import ExportsMaps
from ..recipe import load
from ..utils import ConfigError, write_errors
from .pipeline import Pipeline

LONGEST_STEM = 80
"""Characters of a file's name that come from a row's value, which may be a text."""
_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,")


def write_signals(prediction: Any, stem: Path) -> Any:
    """Write the generated signals of one row's prediction as `<stem>_<name>`, and return the
    prediction with their file names."""
    if not isinstance(prediction, Mapping):
        return prediction
    written = dict(prediction)
    for name, value in prediction.items():
        if isinstance(value, str) and (data := _DATA.match(value)):
            suffix = mimetypes.guess_extension(data[1]) or ".bin"
            file = stem.parent / f"{stem.name}_{name}{suffix}"
            with write_errors(file):
                file.write_bytes(base64.b64decode(value[data.end() :]))
            written[name] = str(file)
    return written


def write_maps(
    pipeline: Pipeline, task: str, inputs: Mapping[str, Any], prediction: Any, stem: Path
) -> Any:
    """Write the maps of one row's prediction as `<stem>_<name>` and return the prediction with
    their file names. Raise ConfigError if the signal's modality cannot save files."""
    task_module = pipeline.model.plan.tasks[task].task
    maps = task_module.export_maps(prediction) if isinstance(task_module, ExportsMaps) else {}
    if not maps:
        return prediction
    if not task_module.streams:
        raise ConfigError(f"--out: {task} reads no stream whose files its maps could be")
    stream = task_module.inputs()[0]
    section = pipeline.model.plan.recipe.inputs[stream]
    save = pipeline.model.plan.streams[stream].modality.save
    if save is None:
        raise ConfigError(
            f"--out: {section.modality} has no files for the maps of {task}; name a file "
            "(out.jsonl), which holds them as numbers"
        )
    raw, write = pipeline.read_raw(stream, inputs[stream]), load(save)
    written = dict(prediction)
    for name, (values, matrix) in maps.items():
        with write_errors(stem), tempfile.TemporaryDirectory(dir=stem.parent) as temporary:
            file: Path = write(Path(temporary, f"{stem.name}_{name}"), values, matrix, raw)
            written[name] = str(file.replace(stem.parent / file.name))
    return written


def output_stem(value: Any, index: int) -> str:
    """Return a name for the files of a row: its own file's, or its number."""
    name = Path(value).name if isinstance(value, (str, Path)) else ""
    return name.partition(".")[0][:LONGEST_STEM] or str(index)
