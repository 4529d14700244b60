"""HTML of a chunk of actions: each joint's curve with its knots and control points, over the
reference samples.

Legend: `S` predicted samples, `dof` joints.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..figures import COLORS, new_figure, to_svg
from .tokenizers import ActionTokenizer, Outline
from .tokenizers.bspline import phases

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, PANEL, LEFT, BELOW = 360, 90, 56, 18
"""px: of the figure, of a joint's panel, beside it for numbers, and below all for steps."""
MAX_JOINTS = 8
"""Joints that are drawn."""

CURVE, REFERENCE, SOFT = COLORS["c0"], COLORS["c1"], COLORS["soft"]


def draw(prediction: Mapping[str, Any], target: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    """Return HTML of `actions [S][dof]`, beside the target's where it has some (not its padding).

    parts: the task's fitted parts; a tokenizer of splines defines the curves.
    """
    actions = np.array(prediction["actions"], float)
    steps, dof = actions.shape
    tokenizers = [part for part in parts.values() if isinstance(part, ActionTokenizer)]
    decodable = tokenizers and not prediction.get("undecodable")
    outlines = tokenizers[0].outlines(actions) if decodable else []
    reference = np.array(target.get("actions", ()), float).reshape(-1, dof)
    padding = np.array(target.get("padding", [False] * len(reference)), bool)
    at = phases(len(reference))[~padding]
    label = f"{steps} steps of {dof} joints"
    label += f", the first {MAX_JOINTS} drawn" if dof > MAX_JOINTS else ""
    count = min(dof, MAX_JOINTS)
    height = PANEL * count + BELOW
    with new_figure(WIDTH, height) as figure:
        for joint in range(count):
            bottom = BELOW + PANEL * (count - 1 - joint) + 4
            box = (LEFT / WIDTH, bottom / height, 1 - (LEFT + 8) / WIDTH, (PANEL - 8) / height)
            axes = figure.add_axes(box)
            axes.plot(at, reference[~padding, joint], "o", markersize=4, color=REFERENCE)
            _panel(axes, actions[:, joint], outlines[joint] if joint < len(outlines) else None)
            _numbers(axes, f"joint {joint}", steps if joint == count - 1 else None)
        svg = to_svg(figure, label)
    legend = _legend(outlines, len(reference) > 0)
    return (
        f'<figure style="margin:0;max-width:{WIDTH * 1.5:g}px">{svg}'
        f"<figcaption>{legend}</figcaption></figure>"
    )


def _panel(axes: Axes, actions: np.ndarray, outline: Outline | None) -> None:
    """Draw one joint: its samples, or the curve, control points and knots behind them."""
    if outline is None:
        axes.plot(phases(len(actions)), actions, "o-", markersize=4, color=CURVE)
        return
    axes.plot(*outline.points.T, color=SOFT, linewidth=1, dashes=(3, 3))
    axes.plot(*outline.points.T, "s", markersize=5, mfc=COLORS["card"], mec=SOFT)
    axes.plot(*outline.curve.T, color=CURVE)
    axes.plot(*outline.knots.T, "|", markersize=12, markeredgewidth=2, color=CURVE)


def _numbers(axes: Axes, name: str, steps: int | None) -> None:
    """Name the joint and its lowest and highest value, and the first and last of the steps."""
    values = np.concatenate([line.get_ydata() for line in axes.lines])
    low, high = float(values.min()), float(values.max())
    if high > low:
        axes.set_yticks([low, (low + high) / 2, high], [f"{low:.2g}", name, f"{high:.2g}"])
    else:
        axes.set_yticks([low], [f"{low:.2g}\n{name}"])
    axes.tick_params(length=0)
    if steps is None:
        axes.set_xticks([])
    else:
        ticks = [0, 1] if steps > 1 else [0]
        axes.set_xticks(ticks, ["step 0", f"step {steps - 1}"][: len(ticks)])
        for text, alignment in zip(axes.get_xticklabels(), ("left", "right"), strict=False):
            text.set(horizontalalignment=alignment)
    for spine in axes.spines.values():
        spine.set(visible=True, color=COLORS["edge"])


def _legend(outlines: Sequence[Outline | None], reference: bool) -> str:
    """Return the legend of the signs that are drawn."""
    signs = [("c0", "━", "prediction")]
    if any(outline is not None for outline in outlines):
        signs += [("c0", "┃", "knots")]
    if any(outline is not None and len(outline.points) for outline in outlines):
        signs += [("soft", "□", "control points")]
    if reference:
        signs += [("c1", "●", "reference")]
    return " ".join(
        f'<small style="white-space:nowrap"><span style="color:var(--{name}, {COLORS[name]})">'
        f"{sign}</span> {html.escape(text)}</small>"
        for name, sign, text in signs
    )
