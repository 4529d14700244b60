"""Text tables for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence

GAP = "  "


def format_table(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Return rows of cells as aligned lines; `right` holds the columns of numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    justify = [str.rjust if i in right else str.ljust for i in range(len(widths))]
    return "\n".join(
        GAP.join(
            align(cell, n) for align, cell, n in zip(justify, row, widths, strict=True)
        ).rstrip()
        for row in rows
    )
