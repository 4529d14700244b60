"""The page of an explanation: a map a word over the signal, importances over the tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ....modalities.figures import COLORS, new_figure, to_svg
from ...utils import write_page
from .curves import Curves
from .explain import Explanation, SignalMaps

WIDTH = 150
"""Pixels of one map."""


def write_explanation(explanation: Explanation, path: Path) -> Path:
    """Write an explanation as one self-contained HTML page, and return its path."""
    words = [text for text, _ in explanation.units]
    signals = [
        (
            name,
            Markup(each.preview),
            [
                (method, _figures(each, words, method), _curves(each.curves.get(method), method))
                for method in each.maps
            ],
        )
        for name, each in explanation.signals.items()
    ]
    texts = [
        (name, [(word, _shaded(tokens, row)) for word, row in zip(words, values, strict=True)])
        for name, (tokens, values) in explanation.texts.items()
    ]
    title = f"{explanation.task}: {' '.join(words)}"
    return write_page(
        path,
        "explain.html.j2",
        title=title,
        units=explanation.units,
        signals=signals,
        texts=texts,
    )


def _figures(signal: SignalMaps, words: list[str], method: str) -> list[tuple[str, Markup]]:
    maps = signal.maps[method]
    largest = float(np.abs(maps).max()) or 1.0
    return [
        (word, _figure(signal.background, values, largest, f"{method}: {word}"))
        for word, values in zip(words, maps, strict=True)
    ]


def _figure(background: np.ndarray, values: np.ndarray, largest: float, label: str) -> Markup:
    """Return one map over the signal."""
    note = ""
    if values.ndim == 3:  # the slice with the most in it
        place = int(np.abs(values).sum((1, 2)).argmax())
        count = len(values)
        background = background[round((place + 0.5) * len(background) / count - 0.5)]
        values, note = values[place], f", slice {place + 1} of {count}"
    one_dimensional = values.ndim == 1
    height = 70 if one_dimensional else WIDTH * background.shape[0] / max(1, background.shape[1])
    with new_figure(WIDTH, max(30, min(height, 2 * WIDTH))) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        if one_dimensional:
            _bars(axes, background, values, largest)
        else:
            extent = (0, background.shape[1], background.shape[0], 0)
            axes.imshow(background, cmap="gray", extent=extent, aspect="auto")
            strength = _strength(values, largest)
            axes.imshow(
                values,
                cmap="coolwarm",
                vmin=-largest,
                vmax=largest,
                alpha=np.clip(0.15 + 0.6 * strength, 0, 0.75),
                extent=extent,
                aspect="auto",
                interpolation="nearest",
            )
        return Markup(to_svg(figure, f"{label}{note}"))


def _strength(values: np.ndarray, largest: float) -> np.ndarray:
    """Return how strongly each cell is tinted, 0 to 1; of values of one sign the range counts."""
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high > low:
        return (values - low) / (high - low)
    return np.abs(values) / largest


def _bars(axes: Any, background: np.ndarray, values: np.ndarray, largest: float) -> None:
    """Draw a signal along time, and below it the value of each frame."""
    span = np.abs(background).max() or 1.0
    places = (np.arange(len(background)) + 0.5) / len(background) * len(values)
    axes.plot(places, 1.2 + background / span, color=COLORS["soft"], linewidth=0.6)
    colors = [COLORS["c1"] if value > 0 else COLORS["c0"] for value in values]
    axes.bar(np.arange(len(values)) + 0.5, values / largest, width=1.0, color=colors)
    axes.set_xlim(0, len(values))
    axes.set_ylim(-1.1, 2.3)


def _curves(curve: Curves | None, method: str) -> Markup | None:
    """Return the curves of deletion and insertion, those of a random map faint."""
    if curve is None:
        return None
    areas = curve.areas()
    with new_figure(300, 220) as figure:
        axes = figure.add_axes((0.17, 0.42, 0.8, 0.55))
        for name, color in (("deletion", "c0"), ("insertion", "c1")):
            axes.plot(
                curve.shares,
                getattr(curve, name),
                color=COLORS[color],
                label=f"{name} {areas[name]:.2f}",
            )
            axes.plot(
                curve.shares,
                getattr(curve, f"random_{name}"),
                color=COLORS[color],
                linestyle=(0, (2, 3)),
                linewidth=1,
                label=f"random {areas[f'random_{name}']:.2f}",
            )
        axes.set_xlabel("share of the cells")
        axes.set_ylabel("probability")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.2g}")
        axes.legend(
            fontsize=10, frameon=False, ncol=2, loc="upper center", bbox_to_anchor=(0.5, -0.4)
        )
        return Markup(to_svg(figure, f"deletion and insertion by {method}"))


def _shaded(tokens: list[str], values: np.ndarray) -> list[tuple[str, float]]:
    """Return each token with its importance as a share of the largest."""
    largest = float(values.max()) or 1.0
    return [
        (token, round(float(value) / largest, 3))
        for token, value in zip(tokens, values, strict=True)
    ]
