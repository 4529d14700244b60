"""sensorium export-llava runs/x --out FOLDER"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.scripts.info import JsonOption, print_result


def export_llava(
    run: Annotated[Path, typer.Argument(help="a run's folder")],
    out: Annotated[Path, typer.Option(help="the folder that is written")],
    json_: JsonOption = False,
) -> None:
    """Write a run as a folder that transformers' LlavaForConditionalGeneration opens."""
    from sensorium.engine.checkpoint.exchange import export_llava as export_folder
    from sensorium.engine.recipe import count

    model = export_folder(run, out)
    text = f"{out}: {type(model).__name__}, {count(model):,} parameters"
    print_result({"folder": out, "parameters": count(model)}, text, json_)


if __name__ == "__main__":
    typer.run(export_llava)
