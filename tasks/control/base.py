"""Shared parts of tasks with action chunks: rows, starts, options and metrics.

Legend: `B` rows, `steps` samples of a chunk, `dof` numbers of an action.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...modalities.action.tokenizers import ActionTokenizer
from ..base import Row, Task
from ..batch import Batch, Example, Tools
from ..common import Prompt, example_row
from .decoders import Chunk, ChunkStatistics, Pair, read_action, read_chunk
from .metrics import ActionMetrics

Span = tuple[int, int]


class ControlTask(Task):
    """tokenizer, chunk: fitted on the column `action`, chunks made by `data.delta_frames`.
    previous_action: the column of the action executed last, for a tokenizer with `fixed_start`."""

    ability: ClassVar[str] = "act"

    def __init__(
        self, tokenizer: ActionTokenizer, chunk: ChunkStatistics, action: str, previous_action: str
    ) -> None:
        super().__init__()
        start, end = (getattr(tokenizer, f"{side}_order", 0) for side in ("start", "end"))
        if start > 1 or end:
            raise ValueError(
                f"tokenizer: start_order {start} and end_order {end} need values that are "
                "not known before the chunk is predicted; use start_order: 1 or 0, and end_order: 0"
            )
        self.tokenizer, self.chunk = tokenizer, chunk
        self.action, self.previous_action = action, previous_action

    def columns(self) -> tuple[str, ...]:
        return (self.action,)

    def check_windows(self, windows: Mapping[str, Span]) -> None:
        """Raise ValueError unless chunks cover the row's own frame, and a window of the action
        executed last ends before the frames to come."""
        self.execution_start(windows)
        span = windows.get(self.previous_action)
        if span is not None and self.tokenizer.fixed_start and span[1] > 0:
            raise ValueError(
                f"{self.previous_action}: found {list(span)}, expected [{min(span[0], -1)}, -1]: "
                "its last frame is the action executed last, and none is of a frame to come"
            )

    def execution_start(self, windows: Mapping[str, Span]) -> int:
        """Return the index of a chunk's sample that is executed at the row's own frame, where the
        data have these windows. Samples before it lie in the past: they are predicted, as in
        training, and never executed.

        Raise ValueError if a chunk has no such sample, or if the tokenizer pins its first sample
        to the action executed last and the window does not begin there.
        """
        span = windows.get(self.action)
        if span is None:  # the source makes chunks, which begin now, or at the pinned action
            return int(self.tokenizer.fixed_start)
        first, last = span
        if self.tokenizer.fixed_start and first != -1:
            raise ValueError(
                f"{self.action}: found [{first}, {last}], expected [-1, {max(last, 0)}]: the "
                "tokenizer pins a chunk's first sample (start_order: 1) to the action executed "
                "last, that of the frame before"
            )
        if first > 0 or last < 0:
            raise ValueError(
                f"{self.action}: found [{first}, {last}], in which the frame 0 is missing; a "
                f"chunk must say what to do now: [{min(first, 0)}, {max(last, 0)}]"
            )
        return -first

    def fit_examples(self, part: str, row: Row) -> Iterable[Any]:
        """Tokenizer and `chunk` are fitted on the row's chunk and its padding."""
        if part in ("tokenizer", "chunk"):
            pair: Pair = read_chunk(row, self.action)
            return (pair,)
        return super().fit_examples(part, row)

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Labels: `actions` `[steps, dof]` and `padding` `[steps]`, if the row has a chunk; `start`
        `[dof]`, the action executed last, if the tokenizer begins there. Reference: the same
        numbers."""
        arrays: dict[str, np.ndarray] = {}
        if self.action in row:
            arrays["actions"], arrays["padding"] = read_chunk(row, self.action)
            self.chunk.check(arrays["actions"])
        if self.tokenizer.fixed_start and self.previous_action in row:
            arrays["start"] = self._previous_action(row)
            self._check_start(arrays)
        elif self.tokenizer.fixed_start and arrays:
            arrays["start"] = arrays["actions"][0]
        labels = {name: torch.from_numpy(np.array(a)) for name, a in arrays.items()}
        return Example(labels, {name: array.tolist() for name, array in arrays.items()})

    def _check_start(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Raise ValueError where the action executed last is the one that is to be predicted."""
        start, actions = arrays["start"], arrays.get("actions", np.empty(0))
        if len(actions) < 2 or np.array_equal(start, actions[0]):
            return
        if np.array_equal(start, actions[1]):
            raise ValueError(
                f"previous_action: the column {self.previous_action!r} holds the action of the "
                "row's own frame, which is to be predicted; set delta_frames: "
                f"{{{self.previous_action}: [-1, -1]}}"
            )

    def _previous_action(self, row: Row) -> np.ndarray:
        """Return `[dof]` the action executed last. None marks the beginning of an episode,
        before which nothing was executed: then the mean of what training episodes began with."""
        padding = row.get(f"{self.previous_action}_padding")  # of a window: before the episode
        if row[self.previous_action] is not None and (padding is None or not padding[-1]):
            return read_action(row, self.previous_action)
        if not self.chunk.first:
            raise ValueError(
                f"previous_action: the column {self.previous_action!r} is empty, and no training "
                "row begins an episode; set the action executed before it"
            )
        return np.asarray(self.chunk.first, np.float32)

    def prepare_batch(self, batch: Batch) -> None:
        """Add the label `target`, the chunks as encoded by `encode`, if all rows have one."""
        if "actions" in batch.labels:
            batch.add_label("target", list(self.encode(Chunk.of(batch))))

    def encode(self, chunk: Chunk) -> Tensor | list[Tensor]:
        """Return the training targets of a batch's chunks, one tensor a row."""
        raise NotImplementedError

    def target(self, batch: Batch) -> Tensor:
        """Return the label `target`. Raise ValueError if a row has no actions."""
        if "target" not in batch.labels and "actions" in batch.missing:
            batch.missing["target"] = batch.missing["actions"]
        return batch.label(
            "target", f"has no actions to learn; its data must have the column {self.action!r}"
        )

    def starts(self, batch: Batch) -> Tensor | None:
        """Return `[B, dof]` on the CPU if the tokenizer begins at the action executed last, else
        None."""
        if not self.tokenizer.fixed_start:
            return None
        start = batch.label(
            "start",
            "the tokenizer begins at the action executed last; give it in the column "
            f"{self.previous_action!r} (None where an episode begins)",
        )
        return start.cpu()

    def metrics(self) -> ActionMetrics:
        return ActionMetrics(self.tokenizer)

    def chunk_rows(self, prompts: Sequence[Prompt] = ()) -> list[dict[str, Any]]:
        """Return two rows with sine waves, of as many samples and joints as the tokenizer requires;
        grippers step."""
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

    def example_rows(self) -> list[dict[str, Any]]:
        return self.chunk_rows()
