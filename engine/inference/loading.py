"""Loading: a run, a recipe or a model of the hub as a pipeline, or as a function of one task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...modalities.messages import did_you_mean
from ..checkpoint import load_model, save_run
from ..model import Model, build
from ..recipe import HUB, load_recipe
from ..utils import ConfigError, pick
from .pipeline import ABILITIES, EMBED, Pipeline

RECIPES = (".yaml", ".yml")
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""Names of torch's dtypes and of the precisions of a recipe."""


def load(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    allow_urls: bool = False,
) -> Pipeline:
    """Load a run's folder, a recipe's file or `hf-hub:org/name`, and move it to a device.

    source: a recipe is composed with the weights that it names. device: `cuda`, `cuda:1`, `xpu`,
    `mps` or `cpu`; None: the first of them that there is. dtype: what products are computed in,
    `float32`, `bfloat16`, `float16`, or `fp32`, `bf16`, `fp16`; None: as it was trained. revision:
    branch, tag or commit of a model of the hub. allow_urls: fetch inputs that are addresses.
    """
    device = pick(device)  # before the weights are read
    precision, name = precision_of(dtype), str(source)
    if revision is not None:
        if not name.startswith(HUB) or "@" in name:
            raise ConfigError(
                f"revision: found {revision!r} beside {name}; only a hub id without @ has revisions"
            )
        name = f"{name}@{revision}"
    if name.endswith(RECIPES):
        model = build(load_recipe(name))
        model.precision = precision or model.precision
        model = model.eval()
    else:
        model = load_model(name, precision)
    return Pipeline(model, allow_urls=allow_urls).to(device)


def precision_of(dtype: str | torch.dtype | None) -> str | None:
    """Return the recipe's name of a dtype. Raise ConfigError for one that products have not."""
    if dtype is None:
        return None
    name = str(dtype).removeprefix("torch.")
    known = {**PRECISIONS, **{value: value for value in PRECISIONS.values()}}
    if name not in known:
        raise ConfigError(f"dtype: there is no {name!r}{did_you_mean(name, known)}")
    return known[name]


def save(model: Pipeline | Model, folder: str | Path) -> None:
    """Write a loaded or composed model into its own folder."""
    save_run(model.model if isinstance(model, Pipeline) else model, Path(folder))


class TaskFunction:
    """One task of a loaded model as a function, see `pipeline`."""

    def __init__(self, model: Pipeline, task: str, batch_size: int | None) -> None:
        self.model, self.task, self.batch_size = model, task, batch_size

    def __call__(
        self, value: Any = None, /, *, options: Mapping[str, Any] | None = None, **named: Any
    ) -> Any:
        """Return the prediction of one value, of each of a list, or lazily of an iterator.

        value: for the task's only stream that is not named. named: further streams and columns of
        the prompt. options: of generation.
        """
        if value is not None:
            free = [name for name in self._streams() if name not in named]
            if len(free) != 1:
                names = ", ".join(free) or "none is left"
                raise ConfigError(f"{self.task}: name the stream of the input: {names}")
            named = {free[0]: value, **named}
        if self.task == EMBED:
            return self.model.embed(batch_size=self.batch_size, **named)
        return self.model.generate(self.task, named, options=options, batch_size=self.batch_size)

    def _streams(self) -> list[str]:
        if self.task == EMBED:
            return list(self.model.model.plan.streams)
        return list(self.model.model.plan.tasks[self.task].task.inputs())


def pipeline(
    task: str, model: str | Path | Pipeline, *, batch_size: int | None = None, **options: Any
) -> TaskFunction:
    """Return one task of a model as a function: `pipeline("caption", "runs/x")("a.png")`.

    task: `caption`, `transcribe`, `classify`, `regress`, `localize`, `segment`, `act`, `draw`,
    `rerank`, `tag` or `embed`, or the name of one of the recipe's tasks. model: what `load` takes,
    or a loaded model. options: of `load`.
    """
    loaded = model if isinstance(model, Pipeline) else load(model, **options)
    if task != EMBED:
        known = loaded.model.plan.tasks
        task = task if task in known or task not in ABILITIES else loaded.find_task(task)
        if task not in known:
            near = did_you_mean(task, [*known, *ABILITIES, EMBED])
            raise ConfigError(f"pipeline: there is no task {task!r}{near}")
    return TaskFunction(loaded, task, batch_size)
