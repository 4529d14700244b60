"""Abilities that a loaded model can be called by, in place of a task's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...modalities.messages import did_you_mean
from ..model import Model
from ..utils import ConfigError

Inputs = Mapping[str, Any] | None


class Abilities:
    """Methods that find the task which can do something. Each takes the inputs of `generate`; a
    recipe with several such tasks needs the task's name first."""

    model: Model

    def generate(self, task: Any, inputs: Inputs = None, /, **named: Any) -> Any:
        """Return the prediction of a task."""
        raise NotImplementedError

    def caption(self, task: str | None = None, inputs: Inputs = None, /, **named: Any) -> Any:
        """Return the texts that a captioning task writes."""
        return self.generate(self.find_task("caption", task), inputs, **named)

    def transcribe(self, task: str | None = None, inputs: Inputs = None, /, **named: Any) -> Any:
        """Return transcripts."""
        return self.generate(self.find_task("transcribe", task), inputs, **named)

    def classify(self, task: str | None = None, inputs: Inputs = None, /, **named: Any) -> Any:
        """Return labels with their scores."""
        return self.generate(self.find_task("classify", task), inputs, **named)

    def regress(self, task: str | None = None, inputs: Inputs = None, /, **named: Any) -> Any:
        """Return numbers in the units of their columns."""
        return self.generate(self.find_task("regress", task), inputs, **named)

    def localize(self, task: str | None = None, inputs: Inputs = None, /, **named: Any) -> Any:
        """Return boxes, or maps of where a text is."""
        return self.generate(self.find_task("localize", task), inputs, **named)

    def segment(self, task: str | None = None, inputs: Inputs = None, /, **named: Any) -> Any:
        """Return masks."""
        return self.generate(self.find_task("segment", task), inputs, **named)

    def draw(self, task: str | None = None, inputs: Inputs = None, /, **named: Any) -> Any:
        """Return samples of a generator."""
        return self.generate(self.find_task("draw", task), inputs, **named)

    def rerank(self, task: str | None = None, inputs: Inputs = None, /, **named: Any) -> Any:
        """Return the scores of pairs of a query and a passage."""
        return self.generate(self.find_task("rerank", task), inputs, **named)

    def tag(self, task: str | None = None, inputs: Inputs = None, /, **named: Any) -> Any:
        """Return a tag for each word of a text, or token of another signal, and entities."""
        return self.generate(self.find_task("tag", task), inputs, **named)

    def find_task(self, ability: str, name: str | None = None) -> str:
        """Return the task of a name, or the only one that has an ability. Raise ConfigError if
        there is none or several, or if the named one has another."""
        tasks = {key: planned.task.ability for key, planned in self.model.plan.tasks.items()}
        if name is not None and name not in tasks:
            raise ConfigError(f"{ability}: there is no task {name!r}{did_you_mean(name, tasks)}")
        able = [key for key, value in tasks.items() if value == ability]
        if name is not None and name not in able:
            raise ConfigError(
                f"{ability}: the task {name!r} can {tasks[name] or 'not be asked by a word'}; "
                f"those that can {ability}: {', '.join(able) or 'none'}"
            )
        if name is None and len(able) != 1:
            listed = ", ".join(able) or "none"
            cure = "name it first" if able else f"the tasks of the model are {', '.join(tasks)}"
            raise ConfigError(f"{ability}: found {listed}, expected one task; {cure}")
        return able[0] if name is None else name
