"""From a recipe to a model with its fitted parts: the first steps of every command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...modalities.base import Source
from ..data import TRAIN, load_split
from ..recipe import Recipe, ResolvedRecipe, load_recipe, plan_recipe
from .compose import Model, compose
from .fit import FITTED as FITTED
from .fit import States, check_heads, fit, load_fitted


class _TrainingSplits(dict[str, Source]):
    """Training splits by task, opened when a part reads rows: a pretrained tokenizer reads none,
    and searching files with a published model needs no training data."""

    def __init__(self, plan: ResolvedRecipe) -> None:
        super().__init__()
        self._plan = plan

    def __missing__(self, task: str) -> Source:
        self[task] = load_split(self._plan, task, TRAIN)
        return self[task]


def resolve_and_fit(
    recipe: Recipe,
    fitted: Path | None = None,
    *,
    states: States | None = None,
    check: Callable[[Recipe], None] | None = None,
) -> ResolvedRecipe:
    """Return a resolved plan with fitted parts, from a run's folder or fitted now.

    Anything the recipe names may be downloaded here, and nowhere else. states: of parts that are
    fitted already. check: called with the resolved recipe before anything is fitted.
    """
    plan = plan_recipe(recipe)
    if fitted is None:
        plan.check_sources()
    plan.resolve()
    if check is not None:
        check(plan.recipe)
    if fitted is not None:
        load_fitted(plan, fitted)
    elif plan.fitted():
        fit(plan, _TrainingSplits(plan), states)
        check_heads(plan)
    return plan


def build(recipe: Recipe | str | Path, fitted: Path | None = None) -> Model:
    """Return the composed model of a recipe (or of its file), with the weights that the recipe
    names."""
    parsed = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    return compose(resolve_and_fit(parsed, fitted))
