"""A chunk of actions for a page: each joint's curve with its knots and control points, over the
samples that were wanted.

Legend: `S` samples of what was said, `dof` joints.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ._basis import phases
from ._outline import Outline
from .base import ActionTokenizer

WIDTH, PANEL, LEFT, EDGE = 380, 96, 52, 8
"""px: of the picture, of a joint's panel, beside it for numbers, and around its lines."""
MOST = 8
"""Joints that are drawn."""

CURVE, WANTED, SOFT = "var(--c0, #0b62c4)", "var(--c1, #b35900)", "var(--soft, #59636e)"


def draw(prediction: Mapping[str, Any], target: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    """HTML of `actions [S][dof]`, beside the target's where it has some (`padding`: not those).

    parts: the task's fitted parts; a tokenizer of splines says what the curves are.
    """
    said = np.array(prediction["actions"], float)
    steps, dof = said.shape
    tokenizers = [part for part in parts.values() if isinstance(part, ActionTokenizer)]
    known = tokenizers[0].outlines(said) if tokenizers and not prediction.get("undecodable") else []
    wanted = np.array(target.get("actions", ()), float).reshape(-1, dof)
    padding = np.array(target.get("padding", [False] * len(wanted)), bool)
    at = phases(len(wanted))[~padding]
    panels = []
    for joint in range(min(dof, MOST)):
        outline = known[joint] if joint < len(known) else None
        true = np.stack([at, wanted[~padding, joint]], axis=1)
        panels.append("".join(_panel(joint, said[:, joint], true, outline)))
    height = PANEL * len(panels) + 16
    told = f"{steps} steps of {dof} joints" + (f", the first {MOST} drawn" if dof > MOST else "")
    return (
        f'<figure style="margin:0"><svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{told}" style="display:block;width:100%;max-width:{WIDTH * 1.5:g}px;'
        f'font:11px system-ui,sans-serif">{"".join(panels)}{_axis(steps, height)}</svg>'
        f"<figcaption>{_legend(known, len(wanted) > 0)}</figcaption></figure>"
    )


def _panel(
    joint: int, said: np.ndarray, wanted: np.ndarray, outline: Outline | None
) -> Iterator[str]:
    """One joint: frame, numbers, what was wanted, then what was said on top."""
    own = np.stack([phases(len(said)), said], axis=1)
    drawn = [own, wanted, *(outline or ())]
    values = np.concatenate([part[:, 1] for part in drawn])
    low, high = float(values.min()), float(values.max())
    top = PANEL * joint
    box = (low - (high == low), high + (high == low), top)
    yield (
        f'<rect x="{LEFT}" y="{top + 2}" width="{WIDTH - LEFT - 2}" height="{PANEL - 6}" '
        f'style="fill:none;stroke:var(--edge, #d5dae0)"/>'
    )
    numbers = [(top + 14, f"{high:.2g}"), (top + PANEL - 8, f"{low:.2g}")]
    shown = numbers[:1] if high == low else numbers
    for y, text in (*shown, (top + PANEL / 2 + 4, f"joint {joint}")):
        yield f'<text x="{LEFT - 4}" y="{y:g}" text-anchor="end" style="fill:{SOFT}">{text}</text>'
    yield from _dots(_placed(wanted, box), WANTED)
    if outline is None:
        yield _line(_placed(own, box), f"stroke:{CURVE};stroke-width:2")
        yield from _dots(_placed(own, box), CURVE)
        return
    points = _placed(outline.points, box)
    yield _line(points, f"stroke:{SOFT};stroke-dasharray:3 3")
    yield _line(_placed(outline.curve, box), f"stroke:{CURVE};stroke-width:2")
    for x, y in points:
        yield (
            f'<rect x="{x - 2.5:.1f}" y="{y - 2.5:.1f}" width="5" height="5" '
            f'style="fill:var(--card, #fff);stroke:{SOFT}"/>'
        )
    for x, y in _placed(outline.knots, box):
        yield f'<path d="M{x:.1f} {y - 6:.1f}v12" style="stroke:{CURVE};stroke-width:2"/>'


def _placed(pairs: np.ndarray, box: tuple[float, float, float]) -> list[tuple[float, float]]:
    """Phases and values `[n, 2]` -> px; box: the lowest and highest value, and the panel's top."""
    low, high, top = box
    x = LEFT + EDGE + pairs[:, 0] * (WIDTH - LEFT - 2 * EDGE - 2)
    y = top + PANEL - 4 - EDGE - (pairs[:, 1] - low) / (high - low) * (PANEL - 6 - 2 * EDGE)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _line(places: Sequence[tuple[float, float]], style: str) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{points}" style="fill:none;{style}"/>' if places else ""


def _dots(places: Sequence[tuple[float, float]], colour: str) -> Iterator[str]:
    for x, y in places:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" style="fill:{colour}"/>'


def _axis(steps: int, height: float) -> str:
    ends = ((LEFT + EDGE, "start", "step 0"), (WIDTH - EDGE - 2, "end", f"step {steps - 1}"))
    return "".join(
        f'<text x="{x}" y="{height - 4}" text-anchor="{anchor}" style="fill:{SOFT}">{text}</text>'
        for x, anchor, text in (ends if steps > 1 else ends[:1])
    )


def _legend(known: Sequence[Outline | None], wanted: bool) -> str:
    """What the signs mean, those that are drawn."""
    signs = [(CURVE, "━", "said")]
    if any(outline is not None for outline in known):
        signs += [(CURVE, "┃", "knots")]
    if any(outline is not None and len(outline.points) for outline in known):
        signs += [(SOFT, "□", "control points")]
    if wanted:
        signs += [(WANTED, "●", "reference")]
    return " ".join(
        f'<small style="white-space:nowrap"><span style="color:{colour}">{sign}</span> '
        f"{html.escape(text)}</small>"
        for colour, sign, text in signs
    )
