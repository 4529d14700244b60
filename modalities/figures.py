"""Figures of matplotlib as inline SVG for an HTML page, in the colours of the page.

Texts stay texts, in the page's font; colours are CSS variables, so a figure follows the page into
its dark scheme; ids are salted with the figure's label, so that figures share a page; the same
figure is the same text. matplotlib is imported when a figure is drawn, its global settings are
left alone, and pyplot is not used.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from .messages import quiet_logger

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Chart:
    """Lines for a report. x, y: labels of the axes. lines: the points of each, by name.
    marked_x: of some, the x that holds for the run."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    marked_x: Mapping[str, float] = field(default_factory=dict)


COLORS = {
    "ink": "#1b1f24",
    "soft": "#56606b",
    "edge": "#d8dde3",
    "card": "#f6f7f9",
    "c0": "#0b62c4",
    "c1": "#b35900",
    "c2": "#117a4b",
    "c3": "#8a3ab9",
    "c4": "#c2185b",
    "c5": "#5d6b00",
}
"""CSS variable -> its colour in the light scheme (report.css); figures are drawn with these."""

DASHES = ("solid", (0, (7, 3)), (0, (2, 3)), (0, (9, 3, 2, 3)), (0, (4, 2)), (0, (1, 2)))
"""Dashes of the lines `c0` to `c5`, so that they differ in print too. px."""

STYLE = {
    "axes.edgecolor": COLORS["soft"],
    "axes.facecolor": "none",
    "axes.labelcolor": COLORS["ink"],
    "axes.labelsize": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "grid.color": COLORS["edge"],
    "grid.linewidth": 1,
    "lines.linewidth": 2,
    "lines.scale_dashes": False,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": COLORS["soft"],
    "text.parse_math": False,
    "xtick.color": COLORS["soft"],
    "xtick.labelsize": 11,
    "ytick.color": COLORS["soft"],
    "ytick.labelsize": 11,
}
_DOTS_PER_INCH = 72  # a point is a pixel
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""Characters that XML does not allow."""


@contextlib.contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """Yield an empty figure of `width` by `height` px; draw and write it within the block."""
    with quiet_logger("matplotlib"):  # that it builds its list of fonts
        import matplotlib.style
        from matplotlib.figure import Figure

    with matplotlib.style.context("default"), matplotlib.rc_context(STYLE):
        size = (width / _DOTS_PER_INCH, height / _DOTS_PER_INCH)
        yield Figure(figsize=size, dpi=_DOTS_PER_INCH)


def to_svg(figure: Figure, label: str, titles: Mapping[str, str] | None = None) -> str:
    """Return the `<svg>` of a figure, as wide as its place in the page allows.

    label: what it shows, as its text alternative. titles: by the `gid` of an artist, what is
    shown where the mouse rests on it.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": label}), warnings.catch_warnings():
        # Texts stay texts: the page's font may have what matplotlib's lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    root = ElementTree.fromstring(_CONTROL.sub("", buffer.getvalue()))
    _clean(root, titles or {})
    view = {"viewBox": root.attrib["viewBox"], "style": "display:block;width:100%"}
    root.attrib = {**view, "role": "img", "aria-label": label}
    text = _CONTROL.sub("", ElementTree.tostring(root, encoding="unicode"))
    for name, color in COLORS.items():
        text = text.replace(f": {color}", f": var(--{name}, {color})")
    return re.sub(r"\s*\n\s*", " ", text)


def _clean(root: ElementTree.Element, titles: Mapping[str, str]) -> None:
    """Keep the drawing alone: no namespaces, fonts, style sheet or metadata, no id without a
    use."""
    for element in list(root.iter()):
        element.tag = _local(element.tag)
        element.attrib = {_local(k): v for k, v in element.attrib.items()}
        for child in [c for c in element if _local(c.tag) in ("metadata", "style")]:
            element.remove(child)
    used = set(re.findall(r"#([\w.-]+)", ElementTree.tostring(root, encoding="unicode")))
    for element in root.iter():
        for name in {"d", "x", "y"} & element.attrib.keys():
            element.set(name, re.sub(r"\d+\.\d+", _rounded, element.attrib[name]))
        if "style" in element.attrib:
            element.set("style", re.sub(r"font-family: [^;]*;? ?", "", element.attrib["style"]))
        gid = element.get("id", "")
        if gid in titles:
            title = ElementTree.Element("title")
            title.text = titles[gid]
            element.insert(0, title)
        if gid and gid not in used:
            del element.attrib["id"]


def _rounded(number: re.Match[str]) -> str:
    """Return a place to a hundredth of a pixel."""
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _local(name: str) -> str:
    return name.rpartition("}")[2]
