"""The `data:` and `train:` sections of a recipe: which rows a model is trained on, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, Field, model_validator

from ..utils import Precision
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
    """The order of the rows. column: what `length`, `balanced` and `single_group` look at."""

    type: Literal["shuffle", "length", "balanced", "single_group"] = "shuffle"
    column: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value


class Validate(Strict):
    """Validation while training, on the split `validation` or on the rows that `holdout` keeps.

    metric: `task/metric`, whose best weights are kept. patience: validations without a better
    value after which training ends.
    """

    every: PositiveInt
    metric: str | None = None
    mode: Literal["max", "min"] = "max"
    patience: PositiveInt | None = None
    batches: PositiveInt | None = None


class Checkpoint(Strict):
    """A checkpoint every so many steps, and how many are kept."""

    every: PositiveInt | None = None
    keep: PositiveInt = 2


class Train(Strict):
    """How the recipe is trained. `batch_size` is one process's rows of one forward.

    activation_checkpointing: blocks of encoders and backbones keep their inputs alone and run again
    in the backward: less memory for more time, the same values.
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
    activation_checkpointing: bool = False
    num_workers: Annotated[int, Ge(0)] = 0
    sampler: SamplerSection = SamplerSection()
    task_weights: dict[str, Positive] = {}
    log_every: PositiveInt = 10
    track: list[Literal["tensorboard", "trackio", "wandb", "mlflow"]] = []
    validate_: Validate | None = Field(default=None, alias="validate")
    checkpoint: Checkpoint = Checkpoint()
    process_timeout: Positive = 30.0


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
