"""sensorium serve runs/a runs/b --port 8000"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.scripts.train import DeviceOption, PrecisionOption

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="folders or hub ids of runs")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="SENSORIUM_API_KEY", help="the key that `Authorization: Bearer` must hold"
        ),
    ] = None,
    index: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PATH", help="an index for /v1/search")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="requests answered together")] = 16,
    wait_ms: Annotated[float, typer.Option(min=0, help="how long a batch waits to fill")] = 5.0,
    max_waiting: Annotated[int, typer.Option(min=1, help="more are refused with 429")] = 256,
    threads: Annotated[int, typer.Option(min=1, help="that read and prepare inputs")] = 4,
    memory_mb: Annotated[int, typer.Option(min=0, help="cached features, for each run")] = 256,
    max_mb: Annotated[int, typer.Option(min=1, help="size of a request")] = 100,
    max_pixels: Annotated[int, typer.Option(min=1, help="of a picture")] = 100_000_000,
    max_voxels: Annotated[int, typer.Option(min=1, help="of a volume")] = 200_000_000,
    max_seconds: Annotated[float, typer.Option(min=0, help="of a sound")] = 3600.0,
    files: Annotated[
        Path | None, typer.Option(help="folder of uploads; by default a temporary one")
    ] = None,
    decoder: Annotated[
        str | None, typer.Option(metavar="URL", help="a vLLM server that runs the decoders")
    ] = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
) -> None:
    """Serve runs over HTTP: OpenAI's routes, any task, and a page at /. SIGTERM answers what waits
    and stops."""
    from sensorium.engine.embedding import Retriever
    from sensorium.engine.inference import load
    from sensorium.engine.utils import ConfigError, check_folder

    try:
        import uvicorn

        from sensorium.engine.serving import RemoteDecoder, ServeSettings, create_app, names_of_runs
    except ImportError as error:
        raise ConfigError(
            f"serve: needs {error.name}; install it with pip install 'sensorium[serve]'"
        ) from error
    _check_access(host, api_key)
    if files is not None:
        check_folder(files, "--files")
    places = dict(_named(text) for text in index or ())
    settings = ServeSettings(
        api_key=api_key,
        batch=batch,
        wait_ms=wait_ms,
        max_waiting=max_waiting,
        threads=threads,
        memory_bytes=memory_mb * 2**20,
        max_bytes=max_mb * 10**6,
        max_pixels=max_pixels,
        max_voxels=max_voxels,
        max_seconds=max_seconds,
        files=files,
    )
    pipelines = {
        name: load(run, device=device, dtype=precision) for name, run in names_of_runs(runs).items()
    }
    if decoder is not None:
        RemoteDecoder(decoder).attach(pipelines)
    retrievers = {name: Retriever(place, device=device) for name, place in places.items()}
    for retriever in retrievers.values():
        _ = retriever.model  # its errors are raised before the port is open
    app = create_app(pipelines, settings, retrievers)
    uvicorn.run(app, host=host, port=port, log_level="info", timeout_graceful_shutdown=30)


def _check_access(host: str, api_key: str | None) -> None:
    from sensorium.engine.utils import ConfigError

    if host not in LOOPBACK and not api_key:
        raise ConfigError(
            f"--host {host}: others can reach it; set --api-key, or leave the host out"
        )


def _named(text: str) -> tuple[str, str]:
    """Return name and path of an `--index`; without a name, that of the folder."""
    name, equals, path = text.partition("=")
    return (name, path) if equals else (Path(text).name, text)


if __name__ == "__main__":
    typer.run(serve)
