"""sensorium report runs/x"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def main(
    runs: Annotated[list[Path], typer.Argument(help="one run's folder, or several")],
    out: Annotated[Path | None, typer.Option(help="the page; report.html of the first")] = None,
) -> None:
    """Write one self-contained HTML page: curves, metrics and samples."""
    from sensorium.engine.report import write_report
    from sensorium.engine.utils import check_writable

    if out is not None:
        check_writable(out, "--out", make=True)
    print(write_report(runs, out or runs[0] / "report.html"))


if __name__ == "__main__":
    typer.run(main)
