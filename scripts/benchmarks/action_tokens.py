"""python -m sensorium.scripts.benchmarks.action_tokens [--chunks 4096] [--steps 50]

B-spline tokens against FAST, bins and scipy's splines, on the same chunks, in turns. Expected are:
encode and decode at 10 times FAST's speed and 20 times scipy's; at no more tokens than FAST, less
error on smooth joints; no wrong sign of a gripper with `switch_times`; any ids decodable.

A chunk has four smooth joints (three slow waves each), two noisy ones (the same, and white noise
of 0.05) and a gripper that switches once, at every sample of the chunk equally often. Tokenizers
are fitted on other chunks than they are measured on. Errors are absolute, of amplitudes around 1.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import typer
from torch import Tensor

KINDS = {"smooth": [0, 1, 2, 3], "noisy": [4, 5], "gripper": [6]}
FLIPS = (1, 4, 16)
BASES, BATCH = 10, 1024
Work = Callable[[], Any]


def make_chunks(count: int, steps: int, seed: int) -> Tensor:
    """Return `[count, steps, 7]` float32."""
    rng = np.random.default_rng(seed)
    u = np.linspace(0, 1, steps)[None, :, None, None]
    periods, phase = rng.uniform(0, 1.5, (count, 1, 6, 3)), rng.uniform(0, 1, (count, 1, 6, 3))
    waves = rng.normal(0, 0.5, (count, 1, 6, 3)) * np.sin(2 * np.pi * (periods * u + phase))
    joints = waves.sum(3)
    joints[:, :, 4:] += rng.normal(0, 0.05, (count, steps, 2))
    at = 1 + np.arange(count) % (steps - 1)
    sign = np.where(np.arange(count) // (steps - 1) % 2, 1.0, -1.0)
    gripper = np.where(np.arange(steps) < at[:, None], -1.0, 1.0) * sign[:, None]
    return torch.from_numpy(np.concatenate([joints, gripper[..., None]], 2)).float()


def tokenizers() -> dict[str, Any]:
    """By the name of a row; the first is measured against the others."""
    from sensorium.modalities.action.tokenizers import BinTokenizer, FastTokenizer
    from sensorium.modalities.action.tokenizers.bspline import BSplineTokenizer

    counts, last = [*[BASES] * 6, 2], [-1]
    return {
        "bspline, switch": BSplineTokenizer(num_basis=counts, grippers=last),
        " 1 % clipped": BSplineTokenizer(num_basis=counts, grippers=last, quantiles=(0.01, 0.99)),
        " degree 0": BSplineTokenizer(num_basis=BASES, grippers=last, gripper="degree0"),
        "fast": FastTokenizer(),
        "fast, scale 40": FastTokenizer(scale=40.0),
        "bins": BinTokenizer(),
    }


def undecodable(tokenizer: Any, chunks: Tensor, flips: int) -> float:
    """Share of chunks that do not decode after some tokens became any others."""
    rng = torch.Generator().manual_seed(flips)
    failed = 0
    for ids in tokenizer.encode(chunks):
        where = torch.randperm(len(ids), generator=rng)[:flips]
        other = torch.randint(1, tokenizer.size, (len(where),), generator=rng)
        ids[where] = (ids[where] + other) % tokenizer.size
        try:
            tokenizer.decode([ids], steps=chunks.shape[1])
        except ValueError:
            failed += 1
    return failed / len(chunks)


def measure(tokenizer: Any, chunks: Tensor) -> str:
    """Tokens a chunk, errors by kind of joint, wrong signs of the gripper, chunks lost to flips."""
    ids = tokenizer.encode(chunks)
    back = tokenizer.decode(ids, steps=chunks.shape[1])
    cells = [f"{np.mean([len(row) for row in ids]):6.1f}"]
    for joints in KINDS.values():
        off = (back - chunks)[..., joints].abs()
        cells.append(f"{off.mean():.4f} {off.square().mean().sqrt():.4f} {off.max():.3f}")
    cells.append(f"{(back * chunks)[..., KINDS['gripper']].le(0).float().mean():10.2%}")
    cells += [f"{undecodable(tokenizer, chunks[:500], k):6.1%}" for k in FLIPS]
    return " | ".join(cells)


def scipys(batches: list[Tensor]) -> tuple[Work, Work]:
    """Return samples to control points and back, a chunk at a time, as scipy has it."""
    from scipy.interpolate import BSpline, make_lsq_spline

    from sensorium.modalities.action.tokenizers.bspline import knots, phases

    u, ends = phases(batches[0].shape[1]), knots(BASES, 4)
    arrays = [chunk for batch in batches for chunk in batch.double().numpy()]
    points = [make_lsq_spline(u, chunk, ends, 4).c for chunk in arrays]
    return (
        lambda: [make_lsq_spline(u, chunk, ends, 4).c for chunk in arrays],
        lambda: [BSpline(ends, coefficients, 4)(u) for coefficients in points],
    )


def each(call: Callable[..., Any], batches: list[Any], **options: Any) -> Work:
    return lambda: [call(batch, **options) for batch in batches]


def speeds(tokenizers_of: dict[str, Any], chunks: Tensor, rounds: int) -> None:
    """Chunks a second of this process's own work, and how many times as fast the first is."""
    from sensorium.scripts.benchmarks.timing import interleaved_median

    steps, fast, batches = chunks.shape[1], tokenizers_of["fast"], list(chunks.split(BATCH))
    encode = {name: each(tokenizer.encode, batches) for name, tokenizer in tokenizers_of.items()}
    ids = {
        name: [tokenizer.encode(batch) for batch in batches]
        for name, tokenizer in tokenizers_of.items()
    }
    decode = {
        name: each(tokenizer.decode, ids[name], steps=steps)
        for name, tokenizer in tokenizers_of.items()
    }
    encode["fast without BPE"] = each(fast._numbers, batches)
    decode["fast without BPE"] = each(fast._values, [fast._numbers(b) for b in batches])
    encode["scipy"], decode["scipy"] = scipys(batches)
    took = [interleaved_median(ways, rounds, time.process_time) for ways in (encode, decode)]
    ours = next(iter(tokenizers_of))
    print(f"\n{'chunks a second':16} |  encode |  decode | {ours} is so many times as fast")
    for name in encode:
        rates = " | ".join(f"{len(chunks) / way[name]:7.0f}" for way in took)
        print(f"{name:16} | {rates} | " + " | ".join(f"{w[name] / w[ours]:5.1f}" for w in took))


def main(
    chunks: int = 4096,
    steps: int = 50,
    rounds: int = typer.Option(15, help="turns; the median counts"),
    seed: int = 0,
) -> None:
    """Print the cost, the error and the robustness of each tokenizer, with the command and the
    hardware."""
    from sensorium.scripts.benchmarks.timing import machine

    command = " ".join(["python -m sensorium.scripts.benchmarks.action_tokens", *sys.argv[1:]])
    parallel = os.environ.get("TOKENIZERS_PARALLELISM", "not set")
    print(f"command    {command}\nhardware   {machine()}; TOKENIZERS_PARALLELISM {parallel}")
    fitted, test = tokenizers(), make_chunks(chunks, steps, seed + 1)
    kinds = " | ".join(f"{kind:7} rms    max" for kind in KINDS)
    lines = " | ".join(f"{k:2} ids" for k in FLIPS)
    print(f"\nerror: mean      | tokens | {kinds}   | wrong sign | undecodable after {lines}")
    for name, tokenizer in fitted.items():
        tokenizer.fit(make_chunks(chunks, steps, seed))
        print(f"{name:16} | {measure(tokenizer, test)}")
    speeds(fitted, test, rounds)


if __name__ == "__main__":
    typer.run(main)
