"""The `data:` and `train:` sections of a recipe: which rows a model is trained on, and how."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, Field, model_validator

from ...modalities.messages import did_you_mean
from ..utils import ConfigError, Precision
from .validation import Strict, TypedSection

PositiveInt = Annotated[int, Gt(0)]
Positive = Annotated[float, Gt(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]


class Holdout(Strict):
    """A share of the training rows that training does not see, in whole groups: the rows of one
    value of the column `by`, else the groups of the source (episodes, speakers)."""

    share: Fraction
    by: str | None = None


class DataSection(Strict):
    """Where rows come from: `source` and its options; `columns` maps the cells: the name
    of a column, or the columns of a cell of keys, `audio: {path: audio_filepath, offset: offset}`.

    delta_frames: of a source of episodes, the first and last frame that a column holds, counted
    from the row's own. where: conditions that rows meet, by column: a value, a list of values, or
    `{min:, max:, not:}`. holdout: a share of the training rows, or `{share:, by: column}`.
    """

    model_config = ConfigDict(extra="allow", validate_default=True, protected_namespaces=())

    source: str
    columns: dict[str, str | dict[str, str]] = {}
    delta_frames: dict[str, tuple[int, int]] = {}
    where: dict[str, Any] = {}
    limit: PositiveInt | None = None
    holdout: Fraction | Holdout = 0.0
    on_error: Literal["raise", "skip"] = "raise"

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def held_out(self) -> Holdout | None:
        """The rows that training does not see, if there are any."""
        holdout = self.holdout
        holdout = holdout if isinstance(holdout, Holdout) else Holdout(share=holdout)
        return holdout if holdout.share else None


class OptimizerSection(TypedSection):
    """An optimizer and its constructor's options. `lr` holds for every part that names none."""

    type: str = "adamw"
    lr: Positive = 1e-3


class ScheduleSection(TypedSection):
    """A learning-rate schedule and its options."""

    type: str = "cosine"


class CallbackSection(TypedSection):
    """A callback of the trainer and its constructor's options."""


class SamplerSection(Strict):
    """The order of the rows. column: what `length`, `balanced` and `single_group` look at. share:
    of `single_group`, the fraction of batches of one value; the others are of any."""

    type: Literal["shuffle", "length", "balanced", "single_group"] = "shuffle"
    column: str | None = None
    share: Annotated[float, Ge(0), Le(1)] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _share(self) -> Self:
        if self.share != 1 and self.type != "single_group":
            raise ValueError(
                f"share: found {self.share} with type: {self.type}; it is the fraction of batches "
                "of one value, of type: single_group"
            )
        return self


class TaskWeight(Strict):
    """The weight of a task between two steps: from `from` on, until `until`, of any by default.

    until_weight: the weight at `until`; between the two it changes linearly.
    """

    weight: Annotated[float, Ge(0)] = 1.0
    from_: Annotated[int, Ge(0)] = Field(default=0, alias="from")
    until: PositiveInt | None = None
    until_weight: Annotated[float, Ge(0)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> TaskWeight:
        if self.until is not None and self.until <= self.from_:
            raise ValueError(f"until: found {self.until}, expected a step after {self.from_}")
        if self.until_weight is not None and self.until is None:
            raise ValueError("until_weight: needs the step `until`")
        return self

    def at(self, step: int) -> float:
        """Return the weight at a step."""
        if step < self.from_ or (self.until is not None and step >= self.until):
            return 0.0
        if self.until is None or self.until_weight is None:
            return self.weight
        share = (step - self.from_) / (self.until - self.from_)
        return self.weight + share * (self.until_weight - self.weight)


ERROR = re.compile(
    r"(^|_)(loss|perplexity|wer|cer|r?mse|mae|mase|l1|xsim|median_rank|jerk|missed|error|hd95"
    r"|distance|delay|false_stops|gap)(_|$)"
)
"""Names of metrics of which less is better."""


class Validate(Strict):
    """Validation while training, on the split `validation` or on the rows that `holdout` keeps.

    metric: `task/metric`, whose best weights are kept. mode: whether its best value is the largest
    (`max`) or the smallest (`min`); by default the smallest of an error (a loss, perplexity, error
    rate, distance) and the largest of anything else. patience: validations without a better value
    after which training ends.
    """

    every: PositiveInt
    metric: str | None = None
    mode: Literal["max", "min"] | None = None
    patience: PositiveInt | None = None
    batches: PositiveInt | None = None

    @property
    def minimizes(self) -> bool:
        """Whether the best value of the metric is the smallest."""
        if self.mode is not None:
            return self.mode == "min"
        name = (self.metric or "").rpartition("/")[2]
        return ERROR.search(name) is not None


class Checkpoint(Strict):
    """A checkpoint every so many steps, and how many are kept."""

    every: PositiveInt | None = None
    keep: PositiveInt = 2


class Train(Strict):
    """How the recipe is trained. `batch_size` is one process's rows of one forward.

    parallel: how several processes share the model: `ddp`, each has all of it, or `fsdp`, each has
    a share of every parameter, its gradient and its optimizer state, and one block at a time is
    whole (FSDP2). One process alone trains as with `ddp`.
    weights_precision: of the matrices while it trains. `bf16` halves their memory and that of their
    gradients; the optimizer keeps a float32 copy of those that train. Needs `precision: bf16`.
    activation_checkpointing: blocks of encoders and backbones keep their inputs alone and run again
    in the backward: less memory for more time, the same values.
    compile: compile each of these blocks by `torch.compile`: true, or the name of another backend
    than inductor.
    profile: a step of which each process writes a trace by torch's profiler, with shapes and
    memory, `profile/step-3-rank-0.json` in the run's folder; Perfetto opens it.
    task_weights: how often a step is of a task, 1 by default; `{weight: 1, from: 0, until: 400}`
    is a function of the step: the optimizer's state goes on where the task changes.
    track: experiment trackers that get the log too, offline, in the run's folder.

    process_timeout: minutes after which a process that waits for another in a step gives up.
    """

    steps: Annotated[int, Ge(0)] = 1000
    batch_size: PositiveInt = 32
    gradient_accumulation_steps: PositiveInt = 1
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    warmup_ratio: Annotated[float, Ge(0), Le(1)] = 0.05
    max_grad_norm: Positive | None = 1.0
    seed: int = 0
    precision: Precision = "fp32"
    weights_precision: Literal["fp32", "bf16"] = "fp32"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    activation_checkpointing: bool = False
    compile: bool | str = False
    profile: PositiveInt | None = None
    num_workers: Annotated[int, Ge(0)] = 0
    sampler: SamplerSection = SamplerSection()
    task_weights: dict[str, Positive | TaskWeight] = {}
    log_every: PositiveInt = 10
    track: list[Literal["tensorboard", "trackio", "wandb", "mlflow"]] = []
    validate_: Validate | None = Field(default=None, alias="validate")
    checkpoint: Checkpoint = Checkpoint()
    process_timeout: Positive = 30.0

    def task_weight(self, task: str, step: int) -> float:
        """Return the weight of a task at a step."""
        weight = self.task_weights.get(task, 1.0)
        return weight.at(step) if isinstance(weight, TaskWeight) else weight

    def task_borders(self) -> list[int]:
        """Return the steps at which the weight of a task begins or ends, 0 the first."""
        changing = [w for w in self.task_weights.values() if isinstance(w, TaskWeight)]
        steps = {0, *(w.from_ for w in changing), *(w.until for w in changing if w.until)}
        return sorted(step for step in steps if step < max(1, self.steps))


def check_task_weights(train: Train, tasks: Collection[str]) -> None:
    """Raise ConfigError for the weight of an unknown task, and for a step at which no task has
    one above 0."""
    for name in train.task_weights:
        if name not in tasks:
            raise ConfigError(f"train.task_weights.{name}: no such task{did_you_mean(name, tasks)}")
    for step in train.task_borders():
        if not any(train.task_weight(name, step) for name in tasks):
            raise ConfigError(
                f"train.task_weights: no task has a weight above 0 at step {step}; let one go on"
            )


OPTIMIZER_ARGUMENTS = ("params", "lr")
"""Arguments of an optimizer that are not options of `train.optimizer`."""

SCHEDULE_ARGUMENTS = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch")
"""Arguments of a schedule that the engine passes."""


class StageSection(Strict):
    """A stage of training: its name, and keys of the recipe that differ in it.

    keep_optimizer: go on with the optimizer's state of the stage before.
    """

    model_config = ConfigDict(extra="allow", validate_default=True, protected_namespaces=())

    name: str
    keep_optimizer: bool = False

    @property
    def overrides(self) -> dict[str, Any]:
        return dict(self.model_extra or {})
