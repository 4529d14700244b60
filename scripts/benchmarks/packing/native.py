"""Packed against padded pictures of many sizes.

    python -m sensorium.scripts.benchmarks.packing.native

Both are the same encoder on the same pictures, forward and backward, in turns; the ratio of their
times is printed as JSON. 1.5 or more is expected.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from ....modalities.image.native import NativeViT


def sizes(count: int, seed: int = 0) -> list[tuple[int, int]]:
    """Return rows and columns of patches: most pictures are small, a few large, of any shape."""
    generator = torch.Generator().manual_seed(seed)
    sides = 4 + (28 * torch.rand(count, 2, generator=generator) ** 2).int()
    return [(int(height), int(width)) for height, width in sides]


def batch_of(encoder: NativeViT, grids: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
    samples = []
    for height, width in grids:
        axes = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        patches = torch.randn(height * width, encoder.embed.in_features)
        samples.append({"patches": patches, "place": torch.stack(axes, -1).view(-1, 2)})
    return encoder.collate(samples)


def seconds(encoder: NativeViT, batch: dict[str, torch.Tensor], packed: bool) -> float:
    encoder.packed = packed
    start = time.perf_counter()
    encoder(**batch).tokens.square().sum().backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    encoder = NativeViT(dim=128, depth=4, heads=4)
    batch = batch_of(encoder, sizes(options.pictures))
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(options.repeats + 1):
        for packed, list_of in times.items():
            list_of.append(seconds(encoder, batch, packed))
    packed_s, padded_s = (statistics.median(times[packed][1:]) for packed in (True, False))
    print(
        json.dumps(
            {
                "real_patches": int(batch["mask"].sum()),
                "padded_patches": batch["mask"].numel(),
                "packed_s": round(packed_s, 4),
                "padded_s": round(padded_s, 4),
                "ratio": round(padded_s / packed_s, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
