"""What the tasks of Meta-World are called in words: several ways each, one kept for the test."""

from __future__ import annotations

INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "reach-v3": (
        "reach the goal",
        "move the hand to the target",
        "bring the gripper to the goal position",
        "move the gripper to the goal",
    ),
    "push-v3": (
        "push the puck to the goal",
        "slide the puck to the target",
        "shove the puck onto the goal position",
        "push the puck to the target",
    ),
    "button-press-v3": (
        "press the button",
        "push the button in",
        "press the red button on the wall",
        "press the button on the wall",
    ),
    "drawer-open-v3": (
        "open the drawer",
        "pull the drawer open",
        "slide the drawer out by its handle",
        "pull the drawer out",
    ),
    "window-close-v3": (
        "close the window",
        "slide the window shut",
        "push the window closed by its handle",
        "shut the window",
    ),
    "pick-place-v3": (
        "pick up the puck and place it at the goal",
        "lift the puck to the target",
        "grasp the puck and carry it to the goal position",
        "pick up the puck and bring it to the target",
    ),
}
"""Task -> ways to ask for it. The last one is kept for the split `test`; its words are not, so
that it can be understood."""


def seen(task: str) -> tuple[str, ...]:
    """The ways to ask for a task that training may see. ValueError for a task without words."""
    return _words(task)[:-1]


def unseen(task: str) -> str:
    """The way to ask for a task that is kept for the test."""
    return _words(task)[-1]


def _words(task: str) -> tuple[str, ...]:
    if task not in INSTRUCTIONS:
        known = ", ".join(INSTRUCTIONS)
        raise ValueError(f"tasks: there are no words for {task!r}, but for {known}")
    return INSTRUCTIONS[task]
