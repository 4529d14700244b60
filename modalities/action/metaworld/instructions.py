"""The instructions of a task of Meta-World: those of training, and one for each other split."""

from __future__ import annotations

import functools
import itertools
import re

from .sentences import HELD_OUT, SENTENCES

KEPT: dict[str, dict[str, str]] = {
    split: {task: ways[place] for task, ways in HELD_OUT.items()}
    for place, split in enumerate(("development", "test"))
}
"""Split -> task -> the instruction that no other split has."""


@functools.cache
def train_instructions(task: str) -> tuple[str, ...]:
    """Return the instructions of a task for training. ValueError for a task without
    words."""
    if task not in SENTENCES:
        tasks = ", ".join(SENTENCES)
        raise ValueError(f"tasks: no words for {task!r}, expected one of {tasks}")
    held_out = {ways[task] for ways in KEPT.values()}
    phrasings = [phrasing for sentence in SENTENCES[task] for phrasing in _expanded(sentence)]
    return tuple(phrasing for phrasing in phrasings if phrasing not in held_out)


def heldout_instruction(task: str, split: str = "test") -> str:
    """Return the instruction of a task that is held out for a split. ValueError as in
    `train_instructions`."""
    train_instructions(task)
    return KEPT[split][task]


def _expanded(sentence: str) -> list[str]:
    """`{a|b} c` -> `a c`, `b c`."""
    parts = re.split(r"\{([^}]*)\}", sentence)
    choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(words) for words in itertools.product(*choices)]
