"""The rows that a command line names: a split of the recipe, a folder, a file, or `KEY=VALUE`s.

What was named is kept as JSON beside each row of an index, so that its data set can be opened
again, to look at what was found.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...modalities.base import Source, StreamingSource
from ...modalities.messages import did_you_mean
from ..data import load_split, open_section
from ..recipe import DataSection, ResolvedRecipe, parse, registered
from ..recipe.validation import validate
from ..utils import ConfigError, find_folder

WHERE = "--data"

BY_SUFFIX = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".tar": "webdataset",
}


@dataclass(frozen=True)
class DataSpec:
    """An opened data set. split: its name, where it has one. text: how to open it again."""

    source: Source
    split: str
    text: str


class Files(Source):
    """Every file under a folder: rows `file` (a `Path`), `path` (a text). Hidden ones are out."""

    columns = ("file", "path")

    def __init__(self, *, path: str) -> None:
        self.folder = find_folder(path)
        inner = (f.relative_to(self.folder) for f in self.folder.rglob("*") if f.is_file())
        self.files = sorted(f for f in inner if not any(p.startswith(".") for p in f.parts))
        if not self.files:
            raise ValueError(f"{self.folder}: holds no file")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file = self.folder / self.files[index]
        return {"file": file, "path": str(file)}

    def key(self, index: int) -> str:
        return self.files[index].as_posix()

    def named_cell(self, index: int, column: str) -> Any:
        return self.folder / self.files[index] if column == "file" else None

    def fingerprint(self) -> str:
        return str(self.folder)


def open_data(
    plan: ResolvedRecipe, stream: str, words: Sequence[str], task: str | None, split: str
) -> DataSpec:
    """What `--data` says, opened; without it, a split of the recipe's task that uses the stream.

    Raises RecipeError where there is no such data, or no column of the stream's name in it.
    """
    if not words:
        return _of_recipe(plan, _task(plan, stream, task), split)
    if len(words) == 1 and Path(words[0]).expanduser().exists():
        values = _path(plan, stream, Path(words[0]).expanduser().absolute())
    else:
        values = _pairs(words)
    return _of_section(values, stream)


def open_spec(plan: ResolvedRecipe, stream: str, text: str) -> DataSpec:
    """The data set of a `DataSpec.text`, which `given` wrote."""
    found = json.loads(text)
    if "task" in found:
        return _of_recipe(plan, found["task"], found["split"])
    return _of_section(found, stream)


def _of_recipe(plan: ResolvedRecipe, task: str, split: str) -> DataSpec:
    text = json.dumps({"task": task, "split": split})
    return DataSpec(load_split(plan, task, split), split, text)


def _of_section(values: dict[str, Any], stream: str) -> DataSpec:
    section = validate(DataSection, values, WHERE, "a data section")
    source = open_section(section, WHERE)
    _check(source, stream)
    split = section.options.get("split") or ""
    return DataSpec(source, str(split), json.dumps(values, sort_keys=True))


def _task(plan: ResolvedRecipe, stream: str, task: str | None) -> str:
    if task is not None and task not in plan.tasks:
        raise ConfigError(f"--task: there is no {task!r}{did_you_mean(task, plan.tasks)}")
    users = [n for n, t in plan.tasks.items() if stream in t.task.streams and task in (None, n)]
    if len(users) != 1:
        there = ", ".join(users) or "none"
        raise ConfigError(
            f"{WHERE}: which rows? tasks with the stream {stream!r}: {there}; name one with "
            "--task, or a folder or source with --data"
        )
    return users[0]


def _path(plan: ResolvedRecipe, stream: str, path: Path) -> dict[str, Any]:
    """A folder of files of the stream's modality, or a table."""
    if path.is_file():
        if path.suffix.lower() not in BY_SUFFIX:
            raise ConfigError(
                f"{WHERE}: {path.name} is no table ({', '.join(BY_SUFFIX)}); name the folder of "
                "the files, or say source=..."
            )
        return {"source": BY_SUFFIX[path.suffix.lower()], "path": str(path)}
    modality = plan.recipe.inputs[stream].modality
    if f"{modality}folder" not in registered("source"):
        own = f"{__name__}:Files"
        return {"source": own, "path": str(path), "columns": {stream: "file"}}
    columns = {} if stream == modality else {"columns": {stream: modality}}
    return {"source": f"{modality}folder", "path": str(path), "labels": False, **columns}


def _pairs(words: Sequence[str]) -> dict[str, Any]:
    """`source=imagefolder path=photos columns.image=file` as a section."""
    values: dict[str, Any] = {}
    for token in (t for word in words for t in shlex.split(word)):
        name, equals, value = token.partition("=")
        if not equals or not name:
            raise ConfigError(
                f"{WHERE}: {token!r} is no folder or file that exists, and no KEY=VALUE"
            )
        *parents, last = name.split(".")
        inner = values
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{WHERE}: {parent} has a value already, and no keys")
        inner[last] = parse(value, f"{WHERE} {name}")
    if "source" not in values:
        raise ConfigError(f"{WHERE}: lacks source=NAME, for example source=imagefolder path=photos")
    return values


def _check(source: Source, stream: str) -> None:
    known = source.columns or tuple(
        next(iter(source), {}) if isinstance(source, StreamingSource) else source[0]
    )
    if stream not in known:
        raise ConfigError(
            f"{WHERE}: has no column {stream!r}{did_you_mean(stream, known)}; "
            f"map one with columns.{stream}=NAME"
        )
    if not isinstance(source, StreamingSource) and len(source) == 0:
        raise ConfigError(f"{WHERE}: holds no row")
