"""Which task of a recipe gives actions."""

from __future__ import annotations

from ..tasks._action_rows import ActionTask
from .errors import RecipeError, did_you_mean
from .plan import RecipePlan


def control_task(plan: RecipePlan, name: str | None, where: str) -> tuple[str, ActionTask]:
    """The task that gives actions, of the name or the only one; RecipeError where there is none."""
    if name is not None and name not in plan.tasks:
        raise RecipeError(f"{where}: there is no task {name!r}{did_you_mean(name, plan.tasks)}")
    every = {key: found.task for key, found in plan.tasks.items()}
    acting = {key: task for key, task in every.items() if isinstance(task, ActionTask)}
    if name is None and len(acting) == 1:
        return next(iter(acting.items()))
    if name is None or name not in acting:
        raise RecipeError(
            f"{where}: found {name or 'none'}, expected a control task; there are: "
            f"{', '.join(acting) or 'none'}"
        )
    return name, acting[name]
