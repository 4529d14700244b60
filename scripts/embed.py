"""sensorium embed runs/x --stream image --data photos/ --out index/

torchrun --nproc_per_node 8 -m sensorium embed ... deals the rows to the processes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sensorium.scripts.info import JsonOption, OverridesArgument, print_result
from sensorium.scripts.train import DeviceOption, PrecisionOption


class VectorForm(StrEnum):
    """How an index holds a row."""

    dense = "dense"
    sparse = "sparse"
    multi_vector = "multi_vector"


class VectorStorage(StrEnum):
    """How a coordinate of a dense vector is held."""

    float32 = "float32"
    int8 = "int8"
    binary = "binary"


class Backend(StrEnum):
    """How the encoder is run."""

    local = "local"
    ray = "ray"


BACKENDS = {
    Backend.local: "sensorium.engine.embedding.embed:embed",
    Backend.ray: "sensorium.engine.embedding.ray_backend:embed_with_ray",
}


def data_words(
    data: Sequence[str] | None, source: str | None, options: Sequence[str] | None
) -> list[str]:
    """Return the words of `open_data`. Raise ConfigError if rows are named in two ways."""
    import shlex

    from sensorium.engine.utils import ConfigError

    if source is None:
        if options:
            raise ConfigError("--set: is an option of --source, which is missing")
        old = [text for text in data or () if text.startswith("source=")]
        if old:
            raise ConfigError(
                f"--data {old[0]}: pass --source NAME --set KEY=VALUE in place of source=NAME "
                "KEY=VALUE"
            )
        return list(data or ())
    if data:
        raise ConfigError("--source: cannot be combined with --data; give one of them")
    return [shlex.quote(text) for text in (f"source={source}", *(options or ()))]


def main(
    run: Annotated[str, typer.Argument(help="a run's folder, hf-hub:org/name, or a recipe")],
    overrides: OverridesArgument = None,
    stream: Annotated[str | None, typer.Option(help="the input; the only one by default")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="a folder or a table; by default a split of the recipe"),
    ] = None,
    source: Annotated[str | None, typer.Option(help="a source, in place of --data")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="option of the source: KEY=VALUE")
    ] = None,
    out: Annotated[str, typer.Option(help="the index: a folder, s3://..., milvus://...")] = "index",
    dim: Annotated[
        int | None, typer.Option(help="keep the first coordinates alone (of a matryoshka model)")
    ] = None,
    form: Annotated[
        VectorForm | None, typer.Option(help="of the vectors; by default as the task compares them")
    ] = None,
    storage: Annotated[
        VectorStorage, typer.Option(help="of dense vectors: 4 bytes a coordinate, 1, or a bit")
    ] = VectorStorage.float32,
    task: Annotated[
        str | None, typer.Option(help="without --data: the task whose split is read")
    ] = None,
    split: Annotated[str, typer.Option(help="without --data: the split")] = "test",
    batch_size: Annotated[int, typer.Option(min=1, help="rows of a forward")] = 64,
    num_workers: Annotated[int, typer.Option(min=0, help="loader processes; with ray, actors")] = 0,
    backend: Annotated[
        Backend, typer.Option(help="local: this process; ray: Ray Data actors")
    ] = Backend.local,
    prune: Annotated[
        bool, typer.Option("--prune", help="remove rows whose files are gone or changed")
    ] = False,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    json_: JsonOption = False,
) -> None:
    """Embed a data set into a searchable index; resumes after an interruption."""
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
    form_name: Any = None if form is None else form.value
    storage_name: Any = storage.value
    maker = index_metadata(
        model, name, run, overrides or (), dim=dim, form=form_name, storage=storage_name
    )
    done = load(BACKENDS[backend])(
        model,
        maker,
        open_data(model.plan, name, data_words(data, source, set_), task, split),
        out,
        batch_size=batch_size,
        workers=num_workers,
        prune=prune,
        log=RunLogger(None),
        device=device,
    )
    if os.environ.get("RANK", "0") == "0":
        print_result({"index": out, "rows": done}, f"{out}: {done.summary()}", json_)


if __name__ == "__main__":
    typer.run(main)
