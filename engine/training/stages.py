"""The start of a stage of training: the state that the stage before it left in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import (
    OptimizerState,
    read_tensors,
    restore_optimizer_by_name,
    saved_tensors,
    take_over,
    write_tensors,
)
from ..model import FITTED, Model, read_states
from ..recipe import WEIGHTS, ComponentPath, Recipe, Stage, Train, load_recipe
from ..utils import derive_seed, write_text

OPTIMIZER = "optimizer.safetensors"
OPTIMIZER_SCALARS = "optimizer.json"


@dataclass(frozen=True)
class StageStart:
    """The start of a stage: the state that the stage before it fitted and trained.

    recipe: its resolved recipe. states: of the fitted parts, by place. tensors: what its model is
    saved with. folder: its run, None in a dry run.
    """

    stage: Stage
    before: Stage
    recipe: Callable[[], Recipe]
    states: Callable[[], Mapping[str, Any]]
    tensors: Callable[[], Mapping[str, Tensor]]
    folder: Path | None = None

    @classmethod
    def of_folder(cls, stage: Stage, before: Stage, folder: Path) -> StageStart:
        """Return the start from the run of the stage before."""
        return cls(
            stage,
            before,
            lambda: load_recipe(folder),
            lambda: read_states(folder / FITTED),
            lambda: read_tensors(folder / WEIGHTS),
            folder,
        )

    @classmethod
    def of_model(cls, stage: Stage, before: Stage, model: Model) -> StageStart:
        """Return the start from the model of the stage before, of a dry run."""
        fitted = model.plan.fitted()
        return cls(
            stage,
            before,
            lambda: model.plan.recipe,
            lambda: {str(where): part.state() for where, part in fitted.items()},
            lambda: saved_tensors(model),
        )

    def kept_states(self) -> dict[str, Any]:
        """Return the states of fitted parts that the stage keeps: those whose sections it leaves
        unchanged, in parts that do not start over."""
        states = {}
        for where, state in self.states().items():
            recipes = self.stage.recipe, self.before.recipe
            sections = [_section(recipe, where) for recipe in recipes]
            if sections[0] == sections[1] and not self._is_new(where.rpartition(".")[0], *recipes):
                states[where] = state
        return states

    def fill(self, model: Model) -> list[ComponentPath]:
        """Fill a composed model; return the parts that start over: those of another `type`, and
        those whose `weights` the stage names."""
        recipes = model.plan.recipe, self.recipe()
        anew = [c.where for c in model.components if self._is_new(c.where, *recipes)]
        take_over(model, self.tensors(), anew)
        return anew

    def fill_optimizer(self, model: Model, optimizer: torch.optim.Optimizer) -> None:
        """Fill an optimizer, if the stage keeps it."""
        if self.stage.section.keep_optimizer and self.folder is not None:
            scalars = json.loads((self.folder / OPTIMIZER_SCALARS).read_text(encoding="utf-8"))
            tensors = read_tensors(self.folder / OPTIMIZER)
            restore_optimizer_by_name(model, optimizer, tensors, scalars)

    def _is_new(self, where: str, recipe: Recipe, before: Recipe) -> bool:
        types = [_section(each, f"{where}.type") for each in (recipe, before)]
        return types[0] != types[1] or self.stage.overrides([*where.split("."), "weights"])


def _section(recipe: Recipe, where: str) -> Any:
    """Return the value of a recipe at a place; None if unset."""
    values: Any = recipe.to_dict()
    for key in where.split("."):
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def save_optimizer(state: OptimizerState, folder: Path) -> None:
    """Write an optimizer's state for a stage that keeps it."""
    tensors, scalars = state
    write_text(folder / OPTIMIZER_SCALARS, json.dumps(scalars))
    write_tensors(folder / OPTIMIZER, tensors)


def stage_settings(recipe: Recipe, start: StageStart | None) -> Train:
    """Return the settings of a run; each stage draws its own rows and noise."""
    if start is None:
        return recipe.train
    seed = derive_seed(recipe.train.seed, "stage", start.stage.index)
    return recipe.train.model_copy(update={"seed": seed})
