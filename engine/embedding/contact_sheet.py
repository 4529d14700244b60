"""A contact sheet: a query and its hits on one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from ..index import Hit
from ..utils import write_page


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
