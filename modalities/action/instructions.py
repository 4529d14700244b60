"""What the tasks of Meta-World are called in words: several ways each, one kept for the test."""

from __future__ import annotations

INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "reach-v3": (
        "reach the goal",
        "move the hand to the target",
        "bring the gripper to the goal position",
        "go to the goal with the hand",
        "reach for the target with the gripper",
        "put the hand at the goal position",
        "bring the hand to the target",
        "move the gripper to the goal",
    ),
    "push-v3": (
        "push the puck to the goal",
        "slide the puck to the target",
        "shove the puck onto the goal position",
        "push the puck over the table to the goal position",
        "slide the puck over the table to the goal",
        "shove the puck to the target",
        "slide the puck onto the goal position",
        "push the puck to the target",
    ),
    "button-press-v3": (
        "press the button",
        "push the button in",
        "press the red button on the wall",
        "press the red button in",
        "push the button on the wall",
        "push the red button",
        "push the red button in",
        "press the button on the wall",
    ),
    "drawer-open-v3": (
        "open the drawer",
        "pull the drawer open",
        "slide the drawer out by its handle",
        "pull the drawer by its handle",
        "slide the drawer open",
        "open the drawer by its handle",
        "slide the drawer out",
        "pull the drawer out",
    ),
    "window-close-v3": (
        "close the window",
        "slide the window shut",
        "push the window closed by its handle",
        "push the window shut",
        "slide the window closed",
        "close the window by its handle",
        "push the window shut by its handle",
        "shut the window",
    ),
    "pick-place-v3": (
        "pick up the puck and place it at the goal",
        "lift the puck to the target",
        "grasp the puck and carry it to the goal position",
        "pick the puck up and carry it to the target",
        "lift the puck and bring it to the goal",
        "grasp the puck and place it at the target",
        "pick up the puck and carry it to the goal",
        "pick up the puck and bring it to the target",
    ),
}
"""Task -> ways to ask for it. The last one is kept for the split `test`, the one before it for
`development`; their words are not, so that they can be understood."""

KEPT = {"development": -2, "test": -1}
"""Split -> the way to ask that it has for itself."""


def seen(task: str) -> tuple[str, ...]:
    """The ways to ask for a task that training may see. ValueError for a task without words."""
    return _words(task)[: min(KEPT.values())]


def unseen(task: str, split: str = "test") -> str:
    """The way to ask for a task that is kept for a split."""
    return _words(task)[KEPT[split]]


def _words(task: str) -> tuple[str, ...]:
    if task not in INSTRUCTIONS:
        known = ", ".join(INSTRUCTIONS)
        raise ValueError(f"tasks: there are no words for {task!r}, but for {known}")
    return INSTRUCTIONS[task]
