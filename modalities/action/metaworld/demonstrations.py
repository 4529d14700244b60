"""Demonstrations of Meta-World's scripted experts, recorded on first access and then stored.

A seed is an episode's construction and one reset: 0-999 for training, 2000-2049 for development,
5000-5199 for the test. What was recorded lies as a LeRobotDataset under the cache's folder.
"""

from __future__ import annotations

import functools
import hashlib
import json
import warnings
import zlib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from ...base import Count, NonNegativeFloat, PositiveInt, Source
from ...paths import cache_root
from ..datasets import LeRobot, Recording, write
from .env import FIRST, RATE, MetaWorld
from .expert import ExpertRecorder
from .instructions import heldout_instruction, train_instructions

SEEDS = {
    "train": range(1000),
    "development": range(FIRST["development"], FIRST["development"] + 50),
    "test": range(FIRST["test"], FIRST["test"] + 200),
}

NAMES = {"instruction": "task", "task": "environment"}
"""Our column -> the folder's: LeRobot's task is the instruction."""

REVISION = 1
"""To be raised whenever equal options yield other rows."""


class Demonstrations(Source):
    """Rows `state [39], proprio [8], action [4], instruction, task, seed, disturbed` and a PNG a
    camera, frame after frame; with `episode_index, frame_index, timestamp` (s). instruction: one
    of the instructions, drawn for each row.

    tasks: `push-v3`, ... episodes: seeds of each. split: which seeds, and which words: one way to
    ask is kept for `development` and another for `test`. noise: deviation of what is added to the
    actions (in [-1, 1]) of further episodes, `branches` a seed, before they are recorded; recorded
    actions are always the expert's own. hold: frames recorded after the first success. cameras:
    pictures that are kept, `size` px a side. An episode in which the expert fails is left out, and
    counted in a warning.
    """

    def __init__(
        self,
        *,
        tasks: list[str],
        episodes: PositiveInt = 100,
        split: Literal["train", "development", "test"] = "train",
        noise: NonNegativeFloat = 0.0,
        branches: Count = 1,
        hold: Count = 20,
        cameras: list[str] | None = None,
        size: PositiveInt = 128,
    ) -> None:
        seeds = SEEDS[split]
        if not 0 < episodes <= len(seeds):
            raise ValueError(
                f"episodes: found {episodes}, expected 1 to {len(seeds)}, the seeds of {split}"
            )
        if noise < 0 or branches < 0 or hold < 1:
            raise ValueError(
                f"noise: found noise {noise}, branches {branches}, hold {hold}; expected at least "
                "0, 0 and 1"
            )
        if not tasks or len(set(tasks)) < len(tasks):
            raise ValueError(f"tasks: found {tasks}, expected one or several, each once")
        for task in tasks:
            MetaWorld(task, cameras=cameras or ())  # refuses what Meta-World does not have
            train_instructions(task)
        self.tasks, self.split, self.seeds = tuple(tasks), split, seeds[:episodes]
        self.noise, self.branches = noise, branches if noise else 0
        self.hold, self.cameras, self.size = hold, tuple(cameras or ()), size
        recorded = ("state", "proprio", "action", *self.cameras, "seed", "disturbed")
        self.columns = (*recorded, "timestamp", "frame_index", "episode_index", *NAMES)

    @property
    def folder(self) -> Path:
        """Where it lies, or will lie once it is recorded."""
        name = f"{'-'.join(t.removesuffix('-v3') for t in self.tasks)[:60]}-{self.split}"
        return cache_root() / "metaworld" / f"{name}-{self._digest()[:16]}"

    @functools.cached_property
    def rows(self) -> LeRobot:
        """The recorded frames; recorded on first access."""
        if not self.folder.is_dir():
            write(self.folder, self._recordings(), RATE, options=self._options())
        return LeRobot(path=str(self.folder))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        cells = {name: row[NAMES.get(name, name)] for name in self.columns}
        return {**cells, "instruction": self._instruction(index, cells["task"])}

    def _instruction(self, index: int, task: str) -> str:
        """One way for a whole episode would tie its words to its layout."""
        phrasings = self._words(task)
        return phrasings[zlib.crc32(self.key(index).encode()) % len(phrasings)]

    @property
    def episodes(self) -> Sequence[range]:
        return self.rows.episodes

    @property
    def groups(self) -> Sequence[object]:
        """Task and seed of each row: disturbed episodes begin as the undisturbed one of their seed
        does."""
        seeds, table = self.rows.column_array("seed").reshape(-1), self.rows
        tasks = [table.cell(rows.start, NAMES.get("task", "task")) for rows in self.episodes]
        return [
            (task, int(seeds[i]))
            for task, rows in zip(tasks, self.episodes, strict=True)
            for i in rows
        ]

    def column_array(self, column: str) -> np.ndarray:
        return self.rows.column_array(NAMES.get(column, column))

    def key(self, index: int) -> str:
        return f"metaworld/{self.split}/{self.rows.key(index).partition('/')[2]}"

    def fingerprint(self) -> str:
        return f"asked-1-{self._digest()}"

    def _digest(self) -> str:
        text = json.dumps(self._options(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _options(self) -> dict[str, Any]:
        """Everything that decides the rows."""
        return {
            "revision": REVISION,
            "metaworld": version("metaworld"),
            "mujoco": version("mujoco"),
            "words": [[task, *self._words(task)] for task in self.tasks],
            "seeds": [self.seeds.start, self.seeds.stop],
            "noise": self.noise,
            "branches": self.branches,
            "hold": self.hold,
            "cameras": list(self.cameras),
            "size": self.size if self.cameras else None,
        }

    def _words(self, task: str) -> tuple[str, ...]:
        return (
            train_instructions(task)
            if self.split == "train"
            else (heldout_instruction(task, self.split),)
        )

    def _recordings(self) -> Iterator[Recording]:
        """Every task's episodes, seed by seed; those that failed are counted."""
        failed, count = 0, len(self.tasks) * len(self.seeds)
        with tqdm(total=count, desc="recording metaworld", disable=None) as bar:
            for task in self.tasks:
                expert = ExpertRecorder(
                    task, self.noise, self.branches, self.hold, self.cameras, self.size
                )
                for seed in self.seeds:
                    for number, recording in enumerate(expert.episodes(seed, self._words(task))):
                        if recording is None:
                            failed += 1
                        else:
                            yield _labelled(recording, task, seed, disturbed=number > 0)
                    bar.update()
        if failed:
            text = f"metaworld: the expert failed in {failed} of {count * (1 + self.branches)}"
            warnings.warn(f"{text} episodes, which are left out", stacklevel=2)


def _labelled(recording: Recording, task: str, seed: int, *, disturbed: bool) -> Recording:
    count = len(recording)
    labels = {"seed": np.full(count, seed), "disturbed": np.full(count, disturbed)}
    return Recording(recording.task, {**recording.columns, **labels, "environment": [task] * count})
