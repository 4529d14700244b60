"""What the tasks of Meta-World are called in words: many ways each, two kept from training.

`{a|b}` in a sentence is a place where either may stand.
"""

from __future__ import annotations

import functools
import itertools
import re

SENTENCES: dict[str, tuple[str, ...]] = {
    "reach-v3": (
        "reach{| for} the {goal|target|goal position}",
        "{move|bring} the {hand|gripper} to the {goal|target|goal position}",
        "put the {hand|gripper} at the {goal|target}",
        "go to the {goal|target} with the {hand|gripper}",
    ),
    "push-v3": (
        "{push|slide|shove} the puck {to|onto} the {goal|target|goal position}",
        "{push|slide} the puck over the table to the {goal|target}",
    ),
    "button-press-v3": ("{press|push} the {|red }button{| in| on the wall}",),
    "drawer-open-v3": (
        "open the drawer{| by its handle}",
        "pull the drawer{| open| out}{| by its handle}",
        "slide the drawer {open|out}{| by its handle}",
    ),
    "window-close-v3": (
        "close the window{| by its handle}",
        "{slide|push} the window {shut|closed}{| by its handle}",
    ),
    "pick-place-v3": (
        "pick up the puck and {place it at|carry it to|bring it to} the {goal|target}",
        "pick the puck up and {place it at|carry it to} the {goal|target|goal position}",
        "lift the puck {|and bring it }to the {goal|target|goal position}",
        "grasp the puck and {lift it to|carry it to|place it at} the {goal|target}",
    ),
}
"""Task -> ways to ask for it."""

KEPT: dict[str, dict[str, str]] = {
    "development": {
        "reach-v3": "bring the hand to the target",
        "push-v3": "slide the puck onto the goal position",
        "button-press-v3": "push the red button in",
        "drawer-open-v3": "slide the drawer out",
        "window-close-v3": "push the window shut by its handle",
        "pick-place-v3": "pick up the puck and carry it to the goal",
    },
    "test": {
        "reach-v3": "move the gripper to the goal",
        "push-v3": "push the puck to the target",
        "button-press-v3": "press the button on the wall",
        "drawer-open-v3": "pull the drawer out",
        "window-close-v3": "shut the window",
        "pick-place-v3": "pick up the puck and bring it to the target",
    },
}
"""Split -> task -> the way to ask that no other split has; each of its words has been heard in
training, so that it can be understood."""


@functools.cache
def train_instructions(task: str) -> tuple[str, ...]:
    """The ways to ask for a task that training may see. ValueError for a task without words."""
    if task not in SENTENCES:
        known = ", ".join(SENTENCES)
        raise ValueError(f"tasks: there are no words for {task!r}, but for {known}")
    kept = {ways[task] for ways in KEPT.values()}
    every = [way for sentence in SENTENCES[task] for way in _expanded(sentence)]
    return tuple(way for way in every if way not in kept)


def heldout_instruction(task: str, split: str = "test") -> str:
    """The way to ask for a task that is kept for a split. ValueError as in `seen`."""
    train_instructions(task)
    return KEPT[split][task]


def _expanded(sentence: str) -> list[str]:
    """`{a|b} c` -> `a c`, `b c`."""
    parts = re.split(r"\{([^}]*)\}", sentence)
    choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(way) for way in itertools.product(*choices)]
