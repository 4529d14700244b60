"""python -m sensorium.scripts.docs [FOLDER]: write the generated pages of the site"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.engine.utils import write_text
from sensorium.modalities.messages import plural

from .api import ROOT, api_page, commands_page
from .messages import errors_table
from .options import KIND_PAGES, options_page, recipe_page
from .papers import load_papers, papers_page


def generated_pages() -> dict[str, str]:
    """Return every generated page by its path below docs/."""
    pages = {f"reference/{plural(kind)}.md": options_page(kind) for kind in KIND_PAGES}
    pages["reference/recipe.md"] = recipe_page()
    pages["reference/api.md"] = api_page()
    pages["reference/commands.md"] = commands_page()
    pages["reference/messages.md"] = f"# Messages\n\n{errors_table()}"
    pages["papers.md"] = papers_page(load_papers())
    return pages


def main(
    folder: Annotated[Path, typer.Argument(help="of the site")] = ROOT / "docs",
) -> None:
    """Write the pages that are generated from the package."""
    for name, text in generated_pages().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)


if __name__ == "__main__":
    from sensorium.engine.utils import console

    with console():
        typer.run(main)
