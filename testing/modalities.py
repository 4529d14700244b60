"""The contract of a modality's declaration."""

from __future__ import annotations

import dataclasses
import inspect
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..engine.recipe import find, load, registered
from ..engine.recipe.validation import arguments
from ..modalities.base import Modality, Source
from .common import checking, expect

EXAMPLES = 2
ENV_METHODS = ("reset", "step", "render", "close")
UNKNOWN = {"an annotation that nobody draws": ([1.0], None)}

_SCOPED = {"encoders": "encoder", "decoders": "decoder", "augments": "augment"}


def check_modality(name: str) -> None:
    """Check a modality against the contract of `modalities.base.Modality`.

    Args:
        name: as a recipe names it: a short name, or `module:NAME`.

    Raises:
        AssertionError: the violated rule, in one line.
    """
    with checking(name, "declaration"):
        modality: Modality = find("modality", name, "modality")
        for field in dataclasses.fields(modality):
            value = getattr(modality, field.name)
            if field.name not in ("annotation", "draws", "segment_columns"):
                paths = value.values() if isinstance(value, Mapping) else filter(None, [value])
                for path in paths:
                    expect(callable(load(path)), f"{field.name}: {path} cannot be called")
    _check_functions(modality, name)
    for field_name, kind in _SCOPED.items():
        for short in getattr(modality, field_name):
            with checking(name, f"{field_name}.{short}"):
                arguments(find(f"{name}_{kind}", short, short))
    for short in modality.sources:
        with checking(name, f"sources.{short}"):
            source = find("source", short, short)
            arguments(source)
            is_part = not inspect.isclass(source) or issubclass(source, Source)
            expect(is_part, f"{source.__name__} is no subclass of modalities.base.Source")
    for short in modality.envs:
        with checking(name, f"envs.{short}"):
            _check_env(find("env", short, short))
    with checking(name, "short names"):
        shared = set(modality.sources) - set(registered("source"))
        expect(not shared, f"no recipe finds the sources {', '.join(shared)}")


def _check_functions(modality: Modality, name: str) -> None:
    read, preview = load(modality.read), load(modality.preview)
    if modality.example is None:
        return
    with checking(name, "example"):
        make: Callable[[np.random.Generator], Any] = load(modality.example)
        cells = [make(np.random.default_rng(i)) for i in range(EXAMPLES)]
    with checking(name, "read"):
        raws = [read(cell) for cell in cells]
        expect(all(raw is not None for raw in raws), "returns None for an example")
    with checking(name, "files"):
        list_files = load(modality.files)
        for cell in (*cells, None, "no such file"):
            files = list_files(cell)
            paths = isinstance(files, (list, tuple)) and all(isinstance(f, Path) for f in files)
            expect(paths, f"returns {files!r}, expected a list of Paths")
    with checking(name, "preview"):
        for raw in raws:
            for annotations in (None, {}, UNKNOWN):
                previewed = preview(raw, annotations)
                expect(
                    isinstance(previewed, str) and previewed,
                    f"returns {previewed!r}, expected HTML",
                )
                expect("<script" not in previewed.lower(), "holds a script, which no report runs")
    if modality.save is not None:
        with checking(name, "save"), tempfile.TemporaryDirectory() as folder:
            values, matrix = _map(2 if isinstance(raws[0], Image.Image) else 3)
            path = Path(load(modality.save)(Path(folder) / "map", values, matrix, raws[0]))
            expect(path.is_file(), f"returns {path}, which is no file")
            expect(path.name.startswith("map"), f"writes {path.name}, expected map and a suffix")


def _map(axes: int) -> tuple[Any, Any]:
    import torch

    return torch.rand(2, 3, 4)[(0,) * (3 - axes)], torch.eye(axes + 1)


def _check_env(env: Any) -> None:
    lacking = [method for method in ENV_METHODS if not callable(getattr(env, method, None))]
    expect(not lacking, f"{env.__name__} has no {', '.join(lacking)}, as gymnasium.Env has")
    names = inspect.signature(env).parameters
    missing = [name for name in ("cameras", "size") if name not in names]
    expect(not missing, f"{env.__name__} takes no {', '.join(missing)}")
    for optional, count in (("expert", 1), ("instruction", 2)):
        function = getattr(env, optional, None)
        if function is not None:
            arity = len(inspect.signature(function).parameters)
            expect(arity == count, f"{optional} takes {arity} arguments, expected {count}")
