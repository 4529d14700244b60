"""The hits of a search for a terminal, for programs, and as a page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from ..index import Hit
from ..utils import format_table, write_page

WIDEST = 48


def hits_to_jsonl(hits: Sequence[Hit]) -> str:
    """Return one JSON object a row: `rank`, `score`, and the row's columns."""
    return "\n".join(
        json.dumps({"rank": i, "score": round(hit.score, 6), **hit.columns()}, ensure_ascii=False)
        for i, hit in enumerate(hits, 1)
    )


def format_hits(hits: Sequence[Hit]) -> str:
    """Return a line a row under the names of the columns; long texts are cut."""
    if not hits:
        return "no row was found"
    names = list(dict.fromkeys(name for hit in hits for name in hit.columns()))
    rows = [["", "score", *names]]
    for i, hit in enumerate(hits, 1):
        columns = hit.columns()
        rows.append(
            [str(i), f"{hit.score:.4f}", *(_short(columns.get(name, "")) for name in names)]
        )
    return format_table(rows)


def _short(value: object) -> str:
    text = " ".join(f"{value:.4g}".split() if isinstance(value, float) else str(value).split())
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def write_sheet(
    path: Path,
    hits: Sequence[Hit],
    previews: Sequence[Markup | str],
    *,
    title: str,
    query: Markup | str,
    note: str,
) -> Path:
    """Write the page, and return its path.

    previews: each hit as its modality shows it. query: likewise. Texts are escaped, `Markup` is
    taken unchanged.
    """
    return write_page(
        path,
        "contact_sheet.html.j2",
        title=title,
        query=query,
        note=note,
        hits=list(zip(hits, previews, strict=True)),
    )
