"""python -m sensorium.scripts.benchmarks.embed [--images 512] [--model ViT-B-32]

Pictures embedded a second by `sensorium embed`'s own function, into a LanceDB table, against a
bare loop over open_clip's model and transforms with the same loader settings, which keeps its
vectors in a list. Expected is a ratio of at least 0.95.

Timed is each whole pass, wall clock and in turns: reading, preparing, encoding, and for ours
opening and committing the index. Not timed are imports, building the models, making the
pictures, fingerprinting the weights, and a first pass that warms the process up.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer


class Pictures:
    """A plain data set of files, as a user of open_clip writes it."""

    def __init__(self, files: list[Path], prepare: Any) -> None:
        self.files, self.prepare = files, prepare

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        with Image.open(self.files[index]) as picture:
            return self.prepare(picture)


def encode_directly(
    model: Any, prepare: Any, files: list[Path], batch: int, workers: int
) -> np.ndarray:
    """Return `[N, D]` of unit length."""
    import torch
    from torch.utils.data import DataLoader

    vectors_of, dataset = [], cast(Any, Pictures(files, prepare))
    with torch.no_grad():
        for pixels in DataLoader(dataset, batch, num_workers=workers):
            vectors_of.append(model.encode_image(pixels, normalize=True).numpy())
    return np.concatenate(vectors_of)


def checkpoint(folder: Path, name: str) -> str:
    """Random weights of a named model in open_clip's own format."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir()
    config = json.dumps({"model_cfg": open_clip.get_model_config(name)})
    (folder / "open_clip_config.json").write_text(config, encoding="utf-8")
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def recipe(name: str, dim: int) -> dict[str, Any]:
    """Return the whole model; only its picture tower is timed."""
    encoder = {"type": "open_clip", "name": name, "freeze": True}
    image = {"modality": "image", "encoder": {**encoder, "output": "embedding"}}
    text = {"modality": "text", "encoder": encoder, "connector": "cls"}
    task = {"type": "contrastive", "streams": ["image", "text"], "dim": dim}
    return {"inputs": {"image": image, "text": text}, "tasks": {"match": task}}


def main(
    images: Annotated[int, typer.Option(help="pictures of 256 x 256 px, JPEG")] = 512,
    model: Annotated[str, typer.Option(help="an open_clip name; random weights")] = "ViT-B-32",
    batch: int = 32,
    workers: int = 0,
    rounds: Annotated[int, typer.Option(help="passes of each; the median counts")] = 5,
    seed: int = 0,
) -> None:
    """Print both speeds and their ratio."""
    import open_clip
    import torch

    from sensorium.engine.embedding import embed, index_metadata, open_data
    from sensorium.engine.model import build
    from sensorium.engine.recipe import parse_recipe
    from sensorium.scripts.benchmarks.cache import pictures
    from sensorium.scripts.benchmarks.timing import interleaved_median, machine

    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory(prefix="sensorium-bench-") as work:
        photos = pictures(Path(work, "photos"), images, seed)
        files = sorted(photos.rglob("*.jpg"))
        name = checkpoint(Path(work, "model"), model)
        peer, _, prepare = open_clip.create_model_and_transforms(name)
        ours = build(parse_recipe(recipe(name, peer.eval().visual.output_dim)))
        rows = open_data(ours.plan, "image", [str(photos)], None, "")
        maker = index_metadata(ours, "image", "bench", ())
        passes: list[str] = []

        def embedded() -> None:
            passes.append(f"{work}/index-{len(passes)}")
            embed(ours, maker, rows, passes[-1], batch_size=batch, workers=workers)

        systems = {
            "sensorium": embedded,
            "open_clip": lambda: encode_directly(peer, prepare, files, batch, workers),
        }
        seconds_of = interleaved_median(systems, rounds)
        keys = [file.relative_to(photos).as_posix() for file in files]
        expected = encode_directly(peer, prepare, files, batch, workers)
        error = max_error(passes[-1], keys, expected)
    print(f"command    {' '.join(['python -m sensorium.scripts.benchmarks.embed', *sys.argv[1:]])}")
    print(f"hardware   {machine()}")
    print(f"work       {model}, random weights, seed {seed}; {images} pictures, batch {batch}, ")
    print(f"           workers {workers}; median of {rounds}; vectors differ by {error:.0e}")
    print_speeds({system: images / seconds for system, seconds in seconds_of.items()})


def max_error(index: str, keys: list[str], expected: np.ndarray) -> float:
    """Return the largest difference of an element between stored vectors and `[N, D]` expected."""
    from sensorium.engine.index import open_index

    rows = open_index(index).where(None, ["key", "vector"])
    stored = {row["key"]: np.array(row["vector"]) for row in rows}
    return max(float(np.abs(stored[k] - v).max()) for k, v in zip(keys, expected, strict=True))


def print_speeds(speeds: dict[str, float]) -> None:
    """Print pictures a second of each system, and the ratio of them."""
    for system, speed in speeds.items():
        print(f"{system:<10} {speed:8.1f} pictures/s")
    print(f"ratio      {speeds['sensorium'] / speeds['open_clip']:8.3f} (>= 0.95)")


if __name__ == "__main__":
    typer.run(main)
