"""The section of a recipe that names a simulator."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Gt
from pydantic import Field

from .validation import Strict


class Env(Strict):
    """The `env:` section: in which simulators a policy acts.

    name: one environment or several. task: the control task, if the recipe has several.
    observation_keys: stream -> key of the observation, or keys whose values are joined; by default
    the stream's name. cameras, size: cameras to render, in pixels a side. options: passed to
    `gymnasium.make`. fps: control steps a second. max_steps: of an episode. clip: clip actions to
    the bounds of the action space. success_key: the key of `info`.

    instruction_column: the column of the prompt that holds the instruction. instruction: a text,
    or one or several for each environment, used by the episodes in turn; by default the
    environment's own. n_action_steps: steps of a chunk that are executed before the next is
    predicted; by default all. temporal_ensemble_coeff: weight all chunks that cover a step by
    `exp(-temporal_ensemble_coeff * i)`, `i = 0` for the oldest (ACT); `n_action_steps` is then 1 by
    default. end_effector_key: the key of the observation whose first three values are the position
    of the end effector. initial_action: what counts as executed before an episode, for a tokenizer
    with `start_order: 1`: numbers, or the key of the observation that holds them; by default the
    mean first action of the training episodes.
    """

    name: str | list[str]
    task: str | None = None
    observation_keys: dict[str, str | list[str]] = {}
    cameras: list[str] = []
    size: Annotated[int, Gt(0)] = 128
    options: dict[str, Any] = {}
    fps: Annotated[float, Gt(0)] | None = None
    max_steps: Annotated[int, Gt(0)] | None = None
    clip: bool = True
    success_key: str = "success"
    instruction_column: str = "instruction"
    instruction: str | dict[str, str | list[str]] = Field(default_factory=dict)
    n_action_steps: Annotated[int, Gt(0)] | None = None
    temporal_ensemble_coeff: Annotated[float, Ge(0)] | None = None
    end_effector_key: str | None = None
    initial_action: str | list[float] | None = None

    @property
    def names(self) -> list[str]:
        return [self.name] if isinstance(self.name, str) else list(self.name)

    def texts(self, name: str) -> list[str]:
        """Return the instructions of an environment; none if the recipe has none."""
        if isinstance(self.instruction, str):
            return [self.instruction]
        instruction = self.instruction.get(name, self.instruction.get(name.rpartition("/")[2], []))
        return [instruction] if isinstance(instruction, str) else list(instruction)
