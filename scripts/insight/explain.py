"""sensorium explain RUN --task caption --image photo.png"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.scripts.info import JsonOption, RunArgument, print_result
from sensorium.scripts.train import DeviceOption


def explain(
    run: RunArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE|NAME=VALUE|--NAME VALUE]...", help="one row, as in generate"),
    ] = None,
    task: Annotated[str | None, typer.Option(help="the task; the only one by default")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="gradient, occlusion, rollout, decoder_rollout; texts: always reagent"),
    ] = None,
    cells: Annotated[
        int | None, typer.Option(min=1, help="cells along an axis; by default the encoder's tokens")
    ] = None,
    baseline: Annotated[
        str, typer.Option(help="replacement of an ablated part: mean or zero")
    ] = "mean",
    steps: Annotated[int, typer.Option(min=0, help="points of the curves; 0: no curves")] = 10,
    out: Annotated[Path, typer.Option(help="the page")] = Path("explain.html"),
    device: DeviceOption = None,
    json_: JsonOption = False,
) -> None:
    """Show what of a file each word of a prediction rests on: one HTML page of maps."""
    from sensorium.engine.evaluation.attribution import explain as explain_row
    from sensorium.engine.evaluation.attribution import write_explanation
    from sensorium.engine.inference import load, rows_of_words
    from sensorium.engine.utils import ConfigError, check_writable

    check_writable(out, "--out", make=True)
    if baseline not in ("mean", "zero"):
        raise ConfigError(f"--baseline: found {baseline!r}, expected mean or zero")
    pipeline = load(run, device=device)
    name, rows, _ = rows_of_words(pipeline, named_options(inputs or []), task)
    if len(rows) != 1:
        raise ConfigError(f"explain: found {len(rows)} rows, expected one; name one file")
    explanation = explain_row(
        pipeline,
        name,
        rows[0],
        methods=method or ("gradient", "occlusion"),
        cells=cells,
        baseline=baseline,  # type: ignore[arg-type]
        steps=steps,
    )
    page = write_explanation(explanation, out)
    print_result({**explanation.to_json(), "page": str(page)}, page, json_)


def named_options(words: list[str]) -> list[str]:
    """Return words with `--image FILE` as `image=FILE`. Raise ConfigError if a value is missing."""
    from sensorium.engine.utils import ConfigError

    result: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            result.append(word)
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        if not equals:
            argument = next(rest, None)
            if argument is None or argument.startswith("--"):
                raise ConfigError(f"{word}: found no value, expected {word} FILE")
            value = argument
        result.append(f"{name.replace('-', '_')}={value}")
    return result


if __name__ == "__main__":
    typer.run(explain)
