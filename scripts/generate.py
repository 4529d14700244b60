"""sensorium generate runs/x a.jpg b.jpg [question="what is it?"] [--task caption]"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.scripts.info import RunArgument
from sensorium.scripts.train import DeviceOption, PrecisionOption


def main(
    run: RunArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE|FOLDER|NAME=VALUE]...",
            help="rows: files or folders of the only input, or values of inputs by name",
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="the task; the only one by default")] = None,
    out: Annotated[
        Path | None, typer.Option(help="write JSON lines here; a folder, and masks as files")
    ] = None,
    generate_kwarg: Annotated[
        list[str] | None, typer.Option(help="option of generation: num_beams=4")
    ] = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
) -> None:
    """Predict for files with a run: one JSON line a file. NAME=VALUE sets a stream or a column. A
    file that cannot be read is named, and the others are answered."""
    import json

    from sensorium.engine.inference import load, predict_files
    from sensorium.engine.recipe import parse
    from sensorium.engine.utils import (
        ConfigError,
        check_folder,
        check_precision,
        check_writable,
        write_text,
    )

    options = {}
    for text in generate_kwarg or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError(f"--generate-kwarg {text}: found no '=', expected NAME=VALUE")
        options[name] = parse(value, f"--generate-kwarg {name}")
    folder = out if out and not out.is_file() and (out.is_dir() or not out.suffix) else None
    if out is not None:
        check_folder(out, "--out") if folder else check_writable(out, "--out")
    check_precision(precision)
    pipeline = load(run, device=device, dtype=precision)
    predictions = predict_files(pipeline, inputs or (), task=task, options=options, folder=folder)
    lines = (json.dumps(line, ensure_ascii=False) for line in predictions)
    if out is None:
        for line in lines:
            print(line, flush=True)
    else:
        out = out if folder is None else folder / "predictions.jsonl"
        write_text(out, "".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    typer.run(main)
