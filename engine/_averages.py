"""Moving averages of encoders that tasks ask for: begun, and brought on after each step.

An average is a part of the model's state, so that it resumes and is saved with the rest;
`weights: runs/x:image.teacher` takes it as the weights of the next recipe's encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..tasks.averages import averaged, follow
from ..tasks.base import Halt, Task
from .adapt import is_frozen, mark_frozen
from .errors import RecipeError, RunError
from .plan import RecipePlan
from .stream import Stream


def begin_averages(plan: RecipePlan, streams: Mapping[str, Stream]) -> None:
    """Give each stream that a task averages its teacher. Raises RecipeError where the encoder is
    frozen, or where two tasks would move one average."""
    kept: dict[str, str] = {}
    for key, part in plan.tasks.items():
        for name in part.task.averages:
            if name in kept:
                raise RecipeError(
                    f"tasks.{key}: keeps an average of inputs.{name}.encoder, and so does "
                    f"tasks.{kept[name]}; give each its own stream"
                )
            if is_frozen(streams[name].encoder):
                raise RecipeError(
                    f"inputs.{name}.encoder: is frozen, and tasks.{key} learns it from its own "
                    "average; take `freeze: true` out"
                )
            kept[name] = key
            teacher = averaged(streams[name].encoder)
            mark_frozen(teacher)
            streams[name].teacher = teacher


def after_step(
    tasks: Mapping[str, Task], stream: Callable[[str], Stream], step: int, steps: int
) -> None:
    """Tell the tasks of a step that is done, and bring their averages on; RunError where one of
    them says that it is useless to go on."""
    for name, task in tasks.items():
        try:
            task.after_step(step)
        except Halt as error:
            raise RunError(f"step {step}: tasks.{name}: {error}") from error
        if task.averages:
            momentum = task.momentum(step / steps)
            for part in map(stream, task.averages):
                if part.teacher is not None:
                    follow(part.teacher, part.encoder, momentum)
