"""The control task of a recipe: the one that predicts actions."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from ..modalities.messages import did_you_mean
from .recipe import RecipePlan
from .utils import RecipeError


@runtime_checkable
class ControlTask(Protocol):
    """What a policy reads of a task that predicts actions; any class that has it is one.

    Each prediction holds `actions` `[steps, dof]`. chunk: `dof`, known once fitted. tokenizer:
    `pins_start`, True if the first of the actions is the one executed last; `last_action`
    is then the column that gives it.
    """

    streams: Any
    chunk: Any
    tokenizer: Any
    last_action: str

    def columns(self) -> tuple[str, ...]: ...


def control_task(plan: RecipePlan, name: str | None, where: str) -> tuple[str, ControlTask]:
    """Return the control task of a name, or the only one, with its name.

    Raises RecipeError, which begins with `where`, if there is none or several.
    """
    if name is not None and name not in plan.tasks:
        raise RecipeError(f"{where}: there is no task {name!r}{did_you_mean(name, plan.tasks)}")
    tasks = {key: planned.task for key, planned in plan.tasks.items()}
    control = {key: task for key, task in tasks.items() if isinstance(task, ControlTask)}
    if name is None and len(control) == 1:
        return next(iter(control.items()))
    if name is None or name not in control:
        raise RecipeError(
            f"{where}: found {name or 'none'}, expected a control task; there are: "
            f"{', '.join(control) or 'none'}"
        )
    return name, control[name]
