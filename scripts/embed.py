"""sensorium embed runs/x --stream image --data photos/ --out index/"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sensorium.scripts.train import DeviceOption, PrecisionOption


class Engine(StrEnum):
    """Where the encoder runs."""

    local = "local"
    ray = "ray"


ENGINES = {
    Engine.local: "sensorium.engine.embedding.embed:embed",
    Engine.ray: "sensorium.engine.embedding.ray_backend:embed_with_ray",
}


def main(
    run: Annotated[str, typer.Argument(help="a run's folder, hf-hub:org/name, or a recipe")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE...]")] = None,
    stream: Annotated[str | None, typer.Option(help="which input; the only one by default")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="a folder, a table, or 'source=NAME key=value'; else the recipe's"),
    ] = None,
    out: Annotated[str, typer.Option(help="the index: a folder, or s3://...")] = "index",
    task: Annotated[str | None, typer.Option(help="without --data: whose split")] = None,
    split: Annotated[str, typer.Option(help="without --data: which split")] = "test",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    workers: Annotated[int, typer.Option(min=0, help="reading processes; with ray, actors")] = 0,
    engine: Annotated[Engine, typer.Option(help="this process, or Ray Data actors")] = Engine.local,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
) -> None:
    """Embed a data set into an index that can be searched; goes on where it was stopped."""
    from sensorium.engine.embedding import (
        index_metadata,
        load_run_or_recipe,
        open_data,
        resolve_stream,
    )
    from sensorium.engine.recipe import load
    from sensorium.engine.utils import RunLogger, check_folder, pick

    pick(device)  # before the weights are read
    if "://" not in out:
        check_folder(Path(out), "--out")
    model = load_run_or_recipe(run, overrides or (), precision)
    name = resolve_stream(model, stream)
    done = load(ENGINES[engine])(
        model,
        index_metadata(model, name, run, overrides or ()),
        open_data(model.plan, name, data or (), task, split),
        out,
        batch_size=batch_size,
        workers=workers,
        log=RunLogger(None),
        device=device,
    )
    print(f"{out}: {done.summary()}")


if __name__ == "__main__":
    typer.run(main)
