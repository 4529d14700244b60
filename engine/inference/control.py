"""Tasks that predict actions, as a policy and the pipeline use them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from ...modalities.messages import did_you_mean
from ..data import Span
from ..recipe import ResolvedRecipe
from ..utils import ConfigError


@runtime_checkable
class ControlTask(Protocol):
    """The interface of a task that predicts actions.

    Each prediction holds `actions` `[steps, dof]`. chunk: `steps` and `dof`, known once fitted,
    and `first`, the first action of the episodes of the training split. tokenizer:
    `fixed_start`, True if the first of the actions is the one executed last; `previous_action`
    is then the column that holds it. execution_start: the index of the action that is executed
    at the row's own frame, by the windows of the data.
    """

    streams: Any
    chunk: Any
    tokenizer: Any
    action: str
    previous_action: str

    def columns(self) -> tuple[str, ...]: ...

    def inputs(self) -> tuple[str, ...]: ...

    def execution_start(self, windows: Mapping[str, Span]) -> int: ...


def find_control_task(
    plan: ResolvedRecipe, name: str | None, where: str
) -> tuple[str, ControlTask]:
    """Return the control task of a name, or the only one, with its name.

    Raise ConfigError, which begins with `where`, if there is none or several.
    """
    if name is not None and name not in plan.tasks:
        raise ConfigError(f"{where}: there is no task {name!r}{did_you_mean(name, plan.tasks)}")
    tasks = {key: planned.task for key, planned in plan.tasks.items()}
    control = {key: task for key, task in tasks.items() if isinstance(task, ControlTask)}
    if name is None and len(control) == 1:
        return next(iter(control.items()))
    if name is None or name not in control:
        raise ConfigError(
            f"{where}: found {name or 'none'}, expected a control task; there are: "
            f"{', '.join(control) or 'none'}"
        )
    return name, control[name]
