"""sensorium analyze RUN logme [inputs.image.encoder.name=a,b] [target=word]"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sensorium.scripts.info import JsonOption, complete_recipes, print_result
from sensorium.scripts.train import DeviceOption


def complete_analyses(incomplete: str) -> list[str]:
    """Return the analyses that a word may become."""
    from sensorium.engine.recipe import registered

    return sorted(name for name in registered("analysis") if name.startswith(incomplete))


def analyze(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|RECIPE",
            help="a run's folder, hf-hub:org/name, or a recipe's file",
            autocompletion=complete_recipes,
        ),
    ],
    name: Annotated[
        str,
        typer.Argument(
            help="logme, probe, ... (all: sensorium list analyses)",
            autocompletion=complete_analyses,
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="options of the analysis; of a recipe also overrides, a,b for several",
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="the task; the only one by default")] = None,
    split: Annotated[str | None, typer.Option(help="this split; test by default")] = None,
    limit: Annotated[int, typer.Option(min=2, help="the first rows")] = 1000,
    device: DeviceOption = None,
    json_: JsonOption = False,
) -> None:
    """Analyze a model without training it, from cached features: which encoder, which layer."""
    from sensorium.engine.evaluation import grid_cells
    from sensorium.engine.evaluation.analyses import Subject, option_names
    from sensorium.engine.evaluation.analyses import analyze as run_analysis
    from sensorium.engine.recipe import parse
    from sensorium.engine.utils import ConfigError, pick

    known = option_names(name)
    options: dict[str, Any] = {}
    overrides: list[str] = []
    for text in settings or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{text}: found no '=', expected KEY=VALUE")
        if key in known:
            options[key] = parse(value, key)
        elif "." in key:
            overrides.append(text)
        else:
            from sensorium.modalities.messages import did_you_mean

            raise ConfigError(f"{key}: {name} has no such option{did_you_mean(key, known)}")
    place = pick(device)
    rows: list[dict[str, Any]] = []
    for cell in grid_cells(overrides):
        model = load_subject(source, [f"{key}={value}" for key, value in cell.items()])
        subject = Subject.of(model, task=task, split=split, limit=limit, device=place)
        varied = {key.rpartition(".")[2]: value for key, value in cell.items()}
        rows += [varied | row for row in run_analysis(subject, name, options)]
    print_result(rows, table(rows), json_)


def load_subject(source: str, overrides: list[str]) -> Any:
    """Return the model of a run, or of a recipe with overrides."""
    from sensorium.engine.checkpoint import load_model
    from sensorium.engine.model import build
    from sensorium.engine.recipe import load_recipe
    from sensorium.engine.utils import ConfigError

    if source.endswith((".yaml", ".yml")):
        return build(load_recipe(source, overrides))
    if overrides:
        raise ConfigError(f"{overrides[0]}: overrides are for a recipe; {source} is trained")
    return load_model(source)


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as aligned lines; numbers with four digits."""
    from sensorium.engine.utils import format_table

    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    numbers = [
        i
        for i, name in enumerate(names)
        if any(isinstance(r.get(name), (int, float)) for r in rows)
    ]
    return format_table(cells, right=numbers)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else str(value)


if __name__ == "__main__":
    typer.run(analyze)
