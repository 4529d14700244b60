"""python -m sensorium.scripts.benchmarks.serving [--images 256] [--clients 32]

Pictures embedded a second by `/v1/embeddings` with several clients at once, against the bare loop
`Pipeline.embed` on the same files in the same process. Expected is a ratio of at least 0.9.

Every picture is another one, so that no feature is remembered. The server runs in this process, on
a port of this machine; the clients keep their connections and are threads of it too, so that both
ways use the same cores. Timed is each whole pass, wall clock and in turns.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
import typer

RECIPE: dict[str, Any] = {
    "inputs": {
        "image": {
            "modality": "image",
            "encoder": {"type": "timm", "name": "vit_tiny_patch16_224", "weights": "none"},
            "connector": "mean",
        }
    },
    "tasks": {"match": {"type": "contrastive", "streams": ["image", "image2"], "dim": 192}},
}


def pictures(count: int, start: int) -> list[bytes]:
    """Return JPEG files of noise, each another one."""
    from PIL import Image

    files = []
    for number in range(start, start + count):
        pixels = np.random.default_rng(number).integers(0, 255, (256, 256, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG")
        files.append(file.getvalue())
    return files


@contextmanager
def serving(app: Any) -> Iterator[int]:
    """Serve an application on a free port, which is yielded."""
    import uvicorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.05)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join()


def ask(port: int, files: list[bytes], clients: int) -> int:
    """Send each file from one of `clients` connections; return the number of vectors."""
    local = threading.local()

    def one(content: bytes) -> int:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        value = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
        body = json.dumps({"model": "vit/image", "input": value, "encoding_format": "base64"})
        headers = {"Content-Type": "application/json"}
        local.connection.request("POST", "/v1/embeddings", body, headers)
        return len(json.loads(local.connection.getresponse().read())["data"])

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(one, files))


def main(
    images: Annotated[int, typer.Option(help="pictures a pass")] = 256,
    clients: Annotated[int, typer.Option(help="connections at once")] = 32,
    rounds: Annotated[int, typer.Option(help="passes of each way")] = 3,
    batch: Annotated[int, typer.Option(help="pictures of a batch, both ways")] = 16,
) -> None:
    """Print pictures a second of both ways, and their ratio."""
    from sensorium.engine.inference import Pipeline
    from sensorium.engine.model import build
    from sensorium.engine.recipe import parse_recipe
    from sensorium.engine.serving import ServeSettings, create_app
    from sensorium.scripts.benchmarks.timing import interleaved_median, machine

    recipe = {**RECIPE, "inputs": {**RECIPE["inputs"], "image2": {"share": "image"}}}
    pipeline = Pipeline(build(parse_recipe(recipe)).eval())
    numbers = iter(range(10**9))
    fresh = lambda: pictures(images, images * next(numbers))  # noqa: E731
    passes = [fresh() for _ in range(2 * rounds + 2)]
    settings = ServeSettings(batch=batch, wait_ms=20, memory_bytes=2**20)
    with serving(create_app({"vit": pipeline}, settings)) as port:
        ways = {
            "served": lambda: ask(port, passes.pop(), clients),
            "bare": lambda: pipeline.embed(image=passes.pop(), batch_size=batch),
        }
        seconds = interleaved_median(ways, rounds)
    for name, value in seconds.items():
        print(f"{name}: {images / value:.1f} pictures/s")
    print(f"served / bare: {seconds['bare'] / seconds['served']:.2f} ({clients} clients)")
    print(machine())


if __name__ == "__main__":
    typer.run(main)
