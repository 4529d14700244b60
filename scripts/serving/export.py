"""sensorium export runs/x --part encoder --format onnx --out encoder.onnx"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.scripts.info import JsonOption, print_result


def export(
    run: Annotated[Path, typer.Argument(help="a run's folder")],
    part: Annotated[
        str, typer.Option(help="encoder, connector, head, backbone, or inputs.image.encoder")
    ],
    out: Annotated[Path, typer.Option(help="the file that is written; of hf the folder")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="safetensors, onnx; folders: hf, sentence-transformers, cross-encoder",
        ),
    ] = "safetensors",
    json_: JsonOption = False,
) -> None:
    """Write one component of a run for other libraries, adapters merged, compared with the run."""
    from dataclasses import asdict

    from sensorium.engine.checkpoint.exchange import export_part

    exported = export_part(run, part, format_, out)
    text = f"{out}: {exported.component} as {format_}"
    if exported.difference:
        text += f"; outputs differ by {exported.difference:.1g} of their standard deviation"
    print_result(asdict(exported), text, json_)


if __name__ == "__main__":
    typer.run(export)
