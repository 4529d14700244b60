"""sensorium import llava FOLDER --out runs/llava"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.scripts.info import JsonOption, print_result


def import_model(
    kind: Annotated[
        str,
        typer.Argument(
            help="llava, clip, siglip, whisper, wav2vec2-ctc, cross-encoder, sentence-transformers"
        ),
    ],
    path: Annotated[Path, typer.Argument(help="the folder of a checkpoint of that kind")],
    out: Annotated[
        Path | None, typer.Option(help="the run's folder; runs/ and the folder's name")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Write a recipe and weights of a checkpoint as a run."""
    from sensorium.engine.checkpoint.exchange import import_model as import_folder
    from sensorium.engine.recipe import count

    folder = Path("runs") / path.resolve().name if out is None else out
    model = import_folder(kind, path, folder)
    parts = f"{', '.join(model.streams)} -> {', '.join(model.tasks)}"
    value = {"run": folder, "parameters": count(model)}
    print_result(value, f"{folder}: {parts}, {count(model):,} parameters", json_)


if __name__ == "__main__":
    typer.run(import_model)
