"""Moving averages of encoders: created, and updated after each step.

An average is a part of the model's state, so that it is resumed and saved with the rest; `weights:
runs/x:image.ema` loads it as the weights of another recipe's encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ....tasks.base import Context, StopTraining, Task
from ....tasks.common import ema_copy, ema_update
from ...recipe import ResolvedRecipe
from ...utils import ConfigError, RuntimeFailure
from ..stream import Stream
from .adapters import is_frozen, mark_frozen


def create_ema_encoders(plan: ResolvedRecipe, streams: Mapping[str, Stream]) -> None:
    """Create the average of each stream that a task requests. Raise ConfigError if the encoder is
    frozen, or two tasks would update one average."""
    owners: dict[str, str] = {}
    for key, part in plan.tasks.items():
        for name in (n for n, use in part.task.streams.items() if use.ema):
            if name in owners:
                raise ConfigError(
                    f"tasks.{key}: keeps an average of inputs.{name}.encoder, and so does "
                    f"tasks.{owners[name]}; give each its own stream"
                )
            if is_frozen(streams[name].encoder):
                raise ConfigError(
                    f"inputs.{name}.encoder: is frozen, and tasks.{key} learns it from its own "
                    "average; take `freeze: true` out"
                )
            owners[name] = key
            teacher = ema_copy(streams[name].encoder)
            mark_frozen(teacher)
            streams[name].ema = teacher
            connector = streams[name].connector
            if part.task.streams[name].ema == "stream" and connector is not None:
                streams[name].ema_connector = ema_copy(connector)


def on_step_end(name: str, task: Task, context: Context, stream: Callable[[str], Stream]) -> None:
    """Call a task after an optimizer step and update its moving averages. Raise RuntimeFailure
    if the task stops the training."""
    try:
        task.on_step_end(context)
    except StopTraining as error:
        raise RuntimeFailure(f"step {context.step}: tasks.{name}: {error}") from error
    pairs = list(task.ema_modules())
    for part in (stream(key) for key, use in task.streams.items() if use.ema):
        averages = ((part.ema, part.encoder), (part.ema_connector, part.connector))
        pairs += [(a, m) for a, m in averages if a is not None and m is not None]
    if pairs:
        decay = task.ema_decay(context.progress)
        for average, module in pairs:
            ema_update(average, module, decay)
