"""python -m sensorium.scripts.benchmarks.cache [--full] [--images 1000] [--epochs 10]

How much the feature cache saves: an MLP head on a frozen `vit_small_patch16_224`, trained by
`sensorium train`'s own function (a) without the cache, (b) with it, the fill included, (c)
again, on the warm cache. Expected are (a) / (b) of at least 8 and (a) / (c) of at least 100.

Timed is the whole call of `train`: opening the data, building the model, hashing its weights,
filling the store, every step, saving the run. Not timed are imports, making the pictures, and
a first run over a few pictures that warms the process up. Without --full, (a) is one epoch:
its steps are multiplied, the cost of a run of no steps is not.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import train
from sensorium.scripts.benchmarks.timing import Times, machine, timed

ENCODER = "vit_small_patch16_224"
CLASSES = 10


def pictures(folder: Path, count: int, seed: int) -> Path:
    """JPEGs of 256 x 256 px in a folder a class; each class has a colour."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (CLASSES, 3))
    for i in range(count):
        place = folder / f"class-{i % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = colours[i % CLASSES] + rng.normal(0, 60, (16, 16, 3))
        small = Image.fromarray(coarse.clip(0, 255).astype(np.uint8))
        small.resize((256, 256), Image.Resampling.BICUBIC).save(place / f"{i:05d}.jpg", quality=90)
    return folder


def recipe(data: Path, steps: int, batch: int, seed: int, cached: bool) -> dict[str, Any]:
    """Return the recipe of a head on the frozen encoder."""
    encoder = {"type": "timm", "name": ENCODER, "weights": "none", "freeze": True}
    task = {
        "type": "classification",
        "input": "image",
        "head": "mlp",
        "data": {"train": {"source": "imagefolder", "path": str(data)}},
    }
    train = {"steps": steps, "batch_size": batch, "seed": seed, "log_every": max(1, steps)}
    return {
        "inputs": {"image": {"modality": "image", "encoder": encoder}},
        "tasks": {"label": task},
        "train": train,
        "cache": {"features": cached},
    }


def main(
    images: Annotated[int, typer.Option(help="pictures, a multiple of the batch")] = 1000,
    epochs: Annotated[int, typer.Option(help="epochs of each run")] = 10,
    batch: Annotated[int, typer.Option(help="pictures a step")] = 50,
    seed: Annotated[int, typer.Option(help="of the pictures and the weights")] = 0,
    full: Annotated[bool, typer.Option(help="run every epoch without the cache")] = False,
) -> None:
    """Train with and without the cache; print the times and the ratios."""
    if images % batch:
        raise typer.BadParameter(f"images: {images} is no multiple of batch: {batch}")
    work = Path(tempfile.mkdtemp(prefix="sensorium-bench-"))
    os.environ["SENSORIUM_CACHE"] = str(work / "cache")

    def run(name: str, data: Path, steps: int, cached: bool) -> Times:
        values = recipe(data, steps, batch, seed, cached)
        times = timed(lambda: train(parse_recipe(values), work / name, show=False))
        sys.stderr.write(f"{name}: {steps} steps, {times.wall:.2f} s, CPU {times.cpu:.2f} s\n")
        return times

    try:
        few = pictures(work / "few", batch, seed + 1)
        data = pictures(work / "pictures", images, seed)
        run("warm-up", few, 1, False)
        run("warm-up, cached", few, 1, True)
        steps = images // batch
        if full:
            uncached = run("uncached", data, epochs * steps, False)
        else:
            nothing = run("uncached, no steps", data, 0, False)
            uncached = run("uncached, one epoch", data, steps, False).extended(nothing, epochs)
        filled = run("cached, fill included", data, epochs * steps, True)
        warm = run("cached, second run", data, epochs * steps, True)
    finally:
        shutil.rmtree(work, ignore_errors=True)

    how = "every epoch ran" if full else f"extrapolated: 1 epoch ran, its steps x {epochs}"
    print(f"command   {' '.join(['python -m sensorium.scripts.benchmarks.cache', *sys.argv[1:]])}")
    print(f"hardware  {machine()}")
    print(f"work      {ENCODER}, frozen, {images} pictures, {epochs} epochs, batch {batch}, ")
    print(f"          seed {seed}; whole calls of train; (a) {how}")
    print(f"{'run':<26}{'s':>9}{'a / run':>9}{'CPU s':>9}{'a / run':>9}{'expected':>10}")
    rows = [("(a) uncached", uncached, ""), ("(b) cached, with the fill", filled, ">= 8")]
    for name, seconds_of, bound in [*rows, ("(c) cached, second run", warm, ">= 100")]:
        wall, cpu = (f"{t:>9.2f}{a / t:>9.1f}" for a, t in zip(uncached, seconds_of, strict=True))
        print(f"{name:<26}{wall}{cpu}{bound:>10}")


if __name__ == "__main__":
    typer.run(main)
