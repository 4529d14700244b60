"""A run's folder is the model: recipe, what was trained, fingerprints of what was not.

`load` builds it again without the training data; `save` and `push` hand it on. Nothing is
ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .._acting import control_task
from ..data import RowList, StreamDataset, repeated, spans_of, stream_readers, task_dataset
from ..model import FITTED, Model, compose, read_json, ready, save_fitted
from ..recipe import HUB, WEIGHTS, download, load_recipe, reported
from ..utils import RecipeError
from .model_card import command_of, made_by, write_card
from .state import (
    check_fingerprints,
    fingerprints,
    kept,
    read_tensors,
    restore,
    write_tensors,
)

FINGERPRINTS = "fingerprints.json"


def save_run(model: Model, folder: Path) -> None:
    """Write a model into a run's folder: recipe, weights, fitted parts, fingerprints, card."""
    folder.mkdir(parents=True, exist_ok=True)
    model.plan.recipe.write(folder / "recipe.yaml", made_by(model.command))
    save_fitted(model.plan, folder / FITTED)
    prints = json.dumps(fingerprints(model), indent=1)
    (folder / FINGERPRINTS).write_text(prints + "\n", encoding="utf-8")
    write_tensors(folder / WEIGHTS, kept(model))
    write_card(model, folder)


def load_model(folder: str | Path) -> Model:
    """The model of a run's folder or `hf-hub:org/name@revision`, in `eval()`.

    Raises RecipeError where the folder is not whole, or another encoder was put in its place.
    """
    folder = download(str(folder)) if str(folder).startswith(HUB) else Path(folder)
    if not (folder / WEIGHTS).is_file():
        raise RecipeError(
            f"{folder}: holds no {WEIGHTS}; is it a run's folder, and was the run finished?"
        )
    recipe = load_recipe(folder / "recipe.yaml")
    model = compose(ready(recipe, folder / FITTED, restored=True))
    check_fingerprints(model, read_json(folder / FINGERPRINTS))
    with torch.no_grad():
        restore(model, read_tensors(folder / WEIGHTS), str(folder / WEIGHTS))
    model.command = command_of(folder)
    return model.eval()


class Pipeline:
    """A loaded model with what a user asks of it: `generate`, `act`, `embed`, by name of the task
    or stream. Values are what the modality's `read` takes: a path, bytes, an array, a text."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._encoders = model.encoders()
        self._readers = stream_readers(model.plan, self._encoders, self._encoders)
        self._collator = model.collator()

    def to(self, device: str | torch.device) -> Pipeline:
        self.model.to(device)
        return self

    def generate(
        self, task: str, *, options: Mapping[str, Any] | None = None, **inputs: Any
    ) -> Any:
        """What the task predicts for `inputs`: the streams, and the columns of its prompt.

        Lists give a list of predictions; single values give one.
        """
        plan = self.model.plan
        if task not in plan.tasks:
            raise RecipeError(f"there is no task {task!r}; there are: {', '.join(plan.tasks)}")
        wanted = plan.tasks[task].task
        needed = wanted.inputs()
        asked = [s for s in wanted.streams if s in needed or s in inputs]
        missing = [name for name in asked if name not in inputs]
        if missing:
            raise RecipeError(f"{task}: needs {', '.join(missing)}; given: {', '.join(inputs)}")
        several = any(isinstance(value, list) for value in inputs.values())
        rows = RowList(_table(inputs))
        dataset = task_dataset(plan, self._encoders, task, rows, streams=asked)
        with reported(task):  # a column that the prompt wants, an option that nobody knows
            batch = self._collator(task, [dataset.load(i) for i in range(len(rows))])
            made = self.model.eval().predict(batch.to(self.model.device), **(options or {}))
        return made if several else made[0]

    def act(self, task: str, **inputs: Any) -> np.ndarray:
        """The chunk of actions `[steps, dof]` to execute now; lists give `[B, steps, dof]`.

        Nothing is remembered: one frame stands for all of a stream's window. `engine.policy`
        keeps the history, executes a part of each chunk and asks again.
        """
        plan = self.model.plan
        control_task(plan, task, "act")
        streams = plan.tasks[task].task.streams
        spans = spans_of(plan.recipe.tasks[task], streams, f"tasks.{task}.data")
        full = {k: repeated(v, spans[k]) if k in spans else v for k, v in inputs.items()}
        made = self.generate(task, **full)
        chunks = [row["actions"] for row in (made if isinstance(made, list) else [made])]
        found = np.asarray(chunks, np.float32)
        return found if isinstance(made, list) else found[0]

    @torch.no_grad()
    def embed(self, **stream: Any) -> Tensor:
        """`[B, D]` vectors of unit length of one stream: its connector's, or the encoder's."""
        if not self._encoders:
            raise RecipeError("embed: the recipe has no stream")
        if len(stream) != 1:
            raise RecipeError(f"embed: takes one stream, found {', '.join(stream) or 'none'}")
        ((name, values),) = stream.items()
        if name not in self._encoders:
            there = ", ".join(self._encoders)
            raise RecipeError(f"embed: there is no stream {name!r}; there are: {there}")
        values = values if isinstance(values, list) else [values]
        rows = RowList([{name: value} for value in values])
        dataset = StreamDataset(rows, {name: self._readers[name]})
        batch = self._collator("", [dataset.load(i) for i in range(len(rows))])
        batch = batch.to(self.model.device)
        self.model.eval()
        features = self.model.context(batch).encode(name)
        return F.normalize(features.vector().float(), dim=-1)

    def raw(self, stream: str, value: Any) -> Any:
        """A value as its modality reads it, before anything is made of it."""
        return self._readers[stream].read(value)


def _table(inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Columns as rows; a single value stands in every row."""
    lengths = {name: len(v) for name, v in inputs.items() if isinstance(v, list)}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise RecipeError(f"inputs: lists of different lengths: {counts}")
    count = next(iter(lengths.values()), 1)
    return [
        {name: v[i] if isinstance(v, list) else v for name, v in inputs.items()}
        for i in range(count)
    ]


def load(folder: str | Path) -> Pipeline:
    """A run's folder, or `hf-hub:org/name`, ready to be asked."""
    return Pipeline(load_model(folder))


def save(model: Pipeline | Model, folder: str | Path) -> None:
    """Write a loaded or composed model into a folder of its own."""
    save_run(model.model if isinstance(model, Pipeline) else model, Path(folder))


def push(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Upload a run's folder to the hub as `org/name`; gives its address."""
    from huggingface_hub import HfApi

    folder = Path(folder)
    if not (folder / WEIGHTS).is_file():
        raise RecipeError(f"{folder}: holds no {WEIGHTS}; train it first")
    api = HfApi()
    api.create_repo(name, private=private, exist_ok=True)
    api.upload_folder(
        repo_id=name, folder_path=folder, ignore_patterns=["checkpoints/**", "*.jsonl"]
    )
    return f"{HUB}{name}"
