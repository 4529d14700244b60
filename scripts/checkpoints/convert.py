"""sensorium convert FOLDER --transforms "[{type: keep_layers, every: 2}]" --out NEW"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.scripts.info import JsonOption, print_result


def convert(
    folder: Annotated[Path, typer.Argument(help="a checkpoint of transformers")],
    transforms: Annotated[
        str, typer.Option(help="a YAML list, or a file with one, as under `transforms:` of a part")
    ],
    out: Annotated[Path, typer.Option(help="the folder that is written")],
    json_: JsonOption = False,
) -> None:
    """Change the structure and weights of a checkpoint; transformers opens the result."""
    from sensorium.engine.model.transforms import convert as convert_folder
    from sensorium.engine.recipe import count, parse_transforms

    model = convert_folder(folder, parse_transforms(transforms, "--transforms"), out)
    text = f"{out}: {type(model).__name__}, {count(model):,} parameters"
    print_result({"folder": out, "parameters": count(model)}, text, json_)


if __name__ == "__main__":
    typer.run(convert)
