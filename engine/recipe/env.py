"""The section of a recipe that names a simulator."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Gt
from pydantic import Field

from .validation import Strict


class Env(Strict):
    """name: one environment or several. task: the control task, where there are several.
    observe: stream -> key of the observation, or keys whose values are joined; its own name by
    default. cameras, size: pictures that are asked for, px a side. options: handed to
    `gymnasium.make`. rate: control steps a second. success: the key of `info`.
    column: the column of the prompt that the instruction fills. instruction: a text, or by
    environment one or several, which the episodes take in turn; the environment's own words, if
    not said. execute: steps of a chunk that
    are executed before the next is asked for; all, if not said. ensemble: weight all chunks that
    speak of a step by exp(-ensemble * i), the oldest has i = 0 (ACT); then `execute` is 1, if not
    said. hand: the key of the observation whose first three values are the hand's position.
    """

    name: str | list[str]
    task: str | None = None
    observe: dict[str, str | list[str]] = {}
    cameras: list[str] = []
    size: Annotated[int, Gt(0)] = 128
    options: dict[str, Any] = {}
    rate: Annotated[float, Gt(0)] | None = None
    max_steps: Annotated[int, Gt(0)] | None = None
    clip: bool = True
    success: str = "success"
    column: str = "instruction"
    instruction: str | dict[str, str | list[str]] = Field(default_factory=dict)
    execute: Annotated[int, Gt(0)] | None = None
    ensemble: Annotated[float, Ge(0)] | None = None
    hand: str | None = None

    @property
    def names(self) -> list[str]:
        return [self.name] if isinstance(self.name, str) else list(self.name)

    def texts(self, name: str) -> list[str]:
        """The instructions of an environment; none where the recipe says none."""
        if isinstance(self.instruction, str):
            return [self.instruction]
        said = self.instruction.get(name, self.instruction.get(name.rpartition("/")[2], []))
        return [said] if isinstance(said, str) else list(said)
