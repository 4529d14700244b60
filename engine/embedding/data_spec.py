"""The rows that a command line names: a split of the recipe, a folder, a file, or `KEY=VALUE`s.

What was named is kept as JSON beside each row of an index, so that its data set can be opened
again, to look at the hits.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...modalities.base import Source, StreamingSource
from ...modalities.messages import did_you_mean
from ...modalities.paths import map_paths
from ..data import TRAIN, check_segments, load_split, open_section
from ..recipe import DataSection, ResolvedRecipe, find, load, parse, registered, to_plain_dict
from ..recipe.validation import validate
from ..utils import ConfigError, find_folder

WHERE = "--data"

FOLDER = "folder"
"""Key of a data set's name: the working folder, where its cells name files relative to it."""

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
    """Return the data of `--data`, opened; without it, a split of the recipe's task that uses the
    stream.

    Raise ConfigError if there is no such data, or no column of the stream's name in it.
    """
    if not words:
        return _of_recipe(plan, _task(plan, stream, task), split, stream)
    if len(words) == 1 and Path(words[0]).expanduser().exists():
        values = _path(plan, stream, Path(words[0]).expanduser().absolute())
    else:
        values = _pairs(words)
    return _of_section(plan, values, stream)


def open_spec(plan: ResolvedRecipe, stream: str, text: str) -> DataSpec:
    """Return the data set of a `DataSpec.text`. Raise ValueError where it is another one now: the
    recipe's section has changed, or its cells name files of another working folder."""
    values = json.loads(text)
    folder = values.pop(FOLDER, None)
    if folder is not None and folder != str(Path.cwd()):
        raise ValueError(f"its rows name files of the folder {folder}; run the command there")
    if "task" not in values:
        return _of_section(plan, values, stream)
    spec = _of_recipe(plan, values["task"], values["split"], stream)
    if spec.text != text:
        raise ValueError(f"tasks.{values['task']}.data has changed since it was embedded")
    return spec


def _of_recipe(plan: ResolvedRecipe, task: str, split: str, stream: str) -> DataSpec:
    source = load_split(plan, task, split)
    sections = plan.recipe.tasks[task].data
    section = sections.get(split) or sections[TRAIN]  # a part of it, held out
    data = _with_absolute_paths(to_plain_dict(section))
    values = {"task": task, "split": split, "data": data}
    return DataSpec(source, split, _text(plan, values, source, stream))


def _of_section(plan: ResolvedRecipe, values: dict[str, Any], stream: str) -> DataSpec:
    values = _with_absolute_paths(values)
    section = validate(DataSection, values, WHERE, "a data section")
    source = open_section(section, WHERE)
    _check(source, stream)
    check_segments(plan, [stream], source, section, WHERE)
    split = section.options.get("split") or ""
    return DataSpec(source, str(split), _text(plan, values, source, stream))


def _text(plan: ResolvedRecipe, values: dict[str, Any], source: Source, stream: str) -> str:
    """Return the name of a data set: how to open it again, with the working folder if its cells
    name files relative to that."""
    row = next(iter(source), {}) if isinstance(source, StreamingSource) else source[0]
    names: list[Path] = []
    if load(plan.streams[stream].modality.files)(cell := row.get(stream)):
        map_paths(cell, lambda name: names.append(Path(name)))
    if any(not name.is_absolute() for name in names):
        values = {**values, FOLDER: str(Path.cwd())}
    return json.dumps(values, sort_keys=True)


def _with_absolute_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a data section whose options name the same files from every working folder."""
    part = find("source", str(values["source"]), f"{WHERE}.source")
    names = getattr(part, "path_options", Source.path_options)
    return {k: _absolute(v) if k in names else v for k, v in values.items()}


def _absolute(value: Any) -> Any:
    if isinstance(value, list):
        return [_absolute(item) for item in value]
    if not isinstance(value, str):
        return value
    path = Path(value).expanduser()
    named = next((p for p in (path, *path.parents) if not set("*?[") & set(p.name)), path)
    return str(path.absolute()) if named.exists() else value


def _task(plan: ResolvedRecipe, stream: str, task: str | None) -> str:
    if task is not None and task not in plan.tasks:
        raise ConfigError(f"--task: there is no {task!r}{did_you_mean(task, plan.tasks)}")
    users = [n for n, t in plan.tasks.items() if stream in t.task.streams and task in (None, n)]
    if len(users) != 1:
        matching = ", ".join(users) or "none"
        raise ConfigError(
            f"{WHERE}: which rows? tasks with the stream {stream!r}: {matching}; name one with "
            "--task, or a folder or source with --data"
        )
    return users[0]


def _path(plan: ResolvedRecipe, stream: str, path: Path) -> dict[str, Any]:
    """Return a folder of files of the stream's modality, or a table."""
    if path.is_file():
        if path.suffix.lower() not in BY_SUFFIX:
            raise ConfigError(
                f"{WHERE}: {path.name} is no table ({', '.join(BY_SUFFIX)}); name the folder of "
                "the files, or set source=..."
            )
        return {"source": BY_SUFFIX[path.suffix.lower()], "path": str(path)}
    modality = plan.recipe.inputs[stream].modality
    if f"{modality}folder" not in registered("source"):
        type_name = f"{__name__}:Files"
        return {"source": type_name, "path": str(path), "columns": {stream: "file"}}
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
    columns = source.columns or tuple(
        next(iter(source), {}) if isinstance(source, StreamingSource) else source[0]
    )
    if stream not in columns:
        raise ConfigError(
            f"{WHERE}: has no column {stream!r}{did_you_mean(stream, columns)}; "
            f"map one with columns.{stream}=NAME"
        )
    if not isinstance(source, StreamingSource) and len(source) == 0:
        raise ConfigError(f"{WHERE}: holds no row")
