"""What tasks that give chunks of actions share: their rows, starts, options and metrics.

Legend: `B` rows, `steps` samples of a chunk, `dof` numbers of an action.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..modalities.action.base import ActionTokenizer
from .action_metrics import ActionMetrics
from .base import Batch, Row, Task
from .chunks import Chunk, Chunks, Pair, read_action, read_chunk
from .prompts import Prompt, example_row


class ActionTask(Task):
    """tokenizer, chunk: fitted on the column `action`, chunks that `data.window` makes.
    last_action: the column of the action executed last, for a tokenizer that begins there."""

    def __init__(
        self, tokenizer: ActionTokenizer, chunk: Chunks, action: str, last_action: str
    ) -> None:
        super().__init__()
        start, end = (getattr(tokenizer, f"{side}_order", 0) for side in ("start", "end"))
        if start > 1 or end:
            raise ValueError(
                f"tokenizer: start_order {start} and end_order {end} want what is not known before "
                "the chunk is said; say start_order: 1 or 0, and end_order: 0"
            )
        self.tokenizer, self.chunk = tokenizer, chunk
        self.action, self.last_action = action, last_action

    def columns(self) -> tuple[str, ...]:
        return (self.action,)

    def material(self, part: str, row: Row) -> Iterable[Pair]:
        """The row's chunk and its padding: what the tokenizer and `chunk` are fitted on."""
        return (read_chunk(row, self.action),)

    def targets(self, row: Row) -> dict[str, Any]:
        """`actions`, `padding`: the chunk, where the row has one. `start`: the action executed
        last, where the tokenizer begins there."""
        found: dict[str, Any] = {}
        if self.action in row:
            values, padding = read_chunk(row, self.action)
            self.chunk.check(values)
            found = {"actions": values.tolist(), "padding": padding.tolist()}
        if self.tokenizer.pins_start and self.last_action in row:
            found["start"] = read_action(row, self.last_action).tolist()
        elif self.tokenizer.pins_start and found:
            found["start"] = found["actions"][0]
        return found

    def chunks_of(self, batch: Batch) -> Chunk:
        """The batch's chunks; ValueError names a row that has none."""
        for key, target in zip(batch.keys, batch.targets, strict=True):
            if "actions" not in target:
                raise ValueError(
                    f"row {key!r}: has no actions to learn; its data must have the column "
                    f"{self.action!r}"
                )
        return Chunk.of(batch.targets)

    def starts(self, batch: Batch) -> Tensor | None:
        """`[B, dof]` where the tokenizer begins at the action executed last, else None."""
        if not self.tokenizer.pins_start:
            return None
        for key, target in zip(batch.keys, batch.targets, strict=True):
            if "start" not in target:
                raise ValueError(
                    f"row {key!r}: the tokenizer begins at the action executed last; give it in "
                    f"the column {self.last_action!r} (the resting position, at first)"
                )
        return torch.tensor([target["start"] for target in batch.targets])

    def steps_of(self, options: Mapping[str, Any]) -> int:
        """The samples asked for, by default as many as the data's chunks have."""
        unknown = sorted(set(options) - {"steps"})
        steps = options.get("steps", self.chunk.steps)
        if unknown or not isinstance(steps, int) or steps < 1:
            raise ValueError(
                f"options: found {dict(options)}, expected none, or steps: 1 or more samples over "
                "the time of a chunk"
            )
        return steps

    def metrics(self) -> ActionMetrics:
        return ActionMetrics(self.tokenizer)

    def example_rows(self, prompts: Sequence[Prompt] = ()) -> list[dict[str, Any]]:
        """Two waves, of as many samples and joints as the tokenizer wants; grippers step."""
        steps = max(16, *np.atleast_1d(getattr(self.tokenizer, "num_basis", 1)).tolist())
        time = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
        grippers: list[int] = getattr(self.tokenizer, "grippers", None) or []
        fewest = max([2, *(g + 1 if g >= 0 else -g for g in grippers)])
        joints = np.arange(1, (self.tokenizer.dof or fewest) + 1, dtype=np.float32)
        rows = []
        for text, phase in (("reach the goal", 0.0), ("push it", 1.0)):
            row = example_row(prompts, text)
            row[self.action] = np.sin(3 * time * joints + phase)
            row[self.action][:, grippers] = np.where(time < 0.5, -1.0, 1.0)
            row[f"{self.action}_padding"] = time[:, 0] > 1 - phase / 4
            rows.append(row)
        return rows

    def example(self) -> list[dict[str, Any]]:
        return self.example_rows()
