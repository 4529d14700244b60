"""python -m sensorium.scripts.benchmarks.retrieval [--rows 100000] [--large 1000000]

Searching an index against faiss and sentence-transformers, on the same vectors, in turns.
Expected are: exact search, at least the speed of the faster of `faiss.IndexFlatIP` and
`semantic_search`; approximate search, recall@10 of 0.95 in at most 1.1 times the time of bare
faiss with the same index; a process that fills and searches the large table, under 3 GB.

Timed is the search alone: scores and row ids for query vectors that are there already.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer

K = 10
CHUNK = 20_000
CLUSTERS = 1000
NOISE = 1.5


def vectors(rows: int, dim: int, seed: int, start: int = 0) -> Iterator[np.ndarray]:
    """Overlapping clusters on the sphere, a chunk at a time: those from `start` on."""
    centres = np.random.default_rng(seed).standard_normal((CLUSTERS, dim), dtype=np.float32)
    for begin in range(start, start + rows, CHUNK):
        rng = np.random.default_rng((seed, begin))
        block = centres[rng.integers(0, CLUSTERS, min(CHUNK, start + rows - begin))]
        block = block + NOISE * rng.standard_normal(block.shape, dtype=np.float32)
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def filled(uri: str, rows: int, dim: int, seed: int) -> Any:
    """Return an index of these vectors, written as `embed` writes it."""
    from sensorium.engine.index import Entry, IndexMetadata, create_index

    index = create_index(uri, IndexMetadata("bench", "x", "none", dim, "fp32", {"x": "0"}))
    start = 0
    for chunk in vectors(rows, dim, seed):
        ids = range(start, start + len(chunk))
        pairs = zip(ids, chunk, strict=True)
        index.add([Entry(str(i), "", "{}", i, i.to_bytes(16, "big"), v, {}) for i, v in pairs])
        start += len(chunk)
    index.optimize()
    return index


def format_times(seconds_of: dict[str, float]) -> str:
    return "  ".join(f"{name} {seconds * 1e3:.2f} ms" for name, seconds in seconds_of.items())


def exact(
    index: Any,
    corpus: np.ndarray,
    queries: np.ndarray,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Three methods that return the same rows; ours as a share of the faster peer's speed."""
    import faiss
    import torch
    from sentence_transformers.util import dot_score, semantic_search

    from sensorium.scripts.benchmarks.timing import interleaved_median

    flat, tensor = faiss.IndexFlatIP(corpus.shape[1]), torch.from_numpy(corpus)
    flat.add(corpus)
    for batch in (queries[:1], queries):
        queries_of = torch.from_numpy(batch)
        systems = {
            "sensorium": partial(index.nearest, batch, K),
            "faiss flat": partial(flat.search, batch, K),
            "semantic_search": partial(
                semantic_search, queries_of, tensor, top_k=K, score_function=dot_score
            ),
        }
        seconds_of = interleaved_median(systems, rounds, clock)
        ratio = (
            min(seconds_of["faiss flat"], seconds_of["semantic_search"]) / seconds_of["sensorium"]
        )
        print(
            f"exact, batch {len(batch):<3} {format_times(seconds_of)}  speed / the faster peer's "
            f"{ratio:.2f}"
        )


def approximate(index: Any, queries: np.ndarray, rounds: int) -> None:
    """The same faiss index through ours and bare, and how many of the ten nearest it finds."""
    from sensorium.scripts.benchmarks.timing import interleaved_median

    right = index.nearest(queries, K)[1]
    for kind in ("hnsw", "ivf"):
        start = time.perf_counter()
        nearest = index.nearest(queries, K, kind=kind)[1]
        built = time.perf_counter() - start
        recall = np.mean([len({*a} & {*b}) / K for a, b in zip(right, nearest, strict=True)])
        faiss_index = index._sides[kind].index
        for batch in (queries[:1], queries):
            systems = {
                "sensorium": partial(index.nearest, batch, K, kind=kind),
                "faiss": partial(faiss_index.search, batch, K),
            }
            seconds_of = interleaved_median(systems, 10 * rounds)
            ratio = seconds_of["sensorium"] / seconds_of["faiss"]
            print(
                f"{kind}, batch {len(batch):<3} {format_times(seconds_of)}  time / faiss "
                f"{ratio:.2f}  "
                f"recall@{K} {recall:.3f}  built in {built:.0f} s"
            )


def large(rows: int, dim: int, seed: int, out: str) -> None:
    """In a separate process: fill, search, and the most memory that it had at any time."""
    index, (queries,) = filled(out, rows, dim, seed), vectors(64, dim, seed, start=rows)
    for kind in ("exact", "ivf"):
        index.nearest(queries[:1], K, kind=kind)
        start = time.perf_counter()
        index.nearest(queries, K, kind=kind)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        print(f"{rows} x {dim}, {kind}: 64 queries {seconds:.2f} s  peak RSS {peak:.2f} GB (< 3)")


def main(
    rows: Annotated[int, typer.Option(help="rows of the timed table")] = 100_000,
    large_rows: Annotated[int, typer.Option("--large", help="rows of the other; 0: none")] = 0,
    dim: int = 512,
    rounds: Annotated[int, typer.Option(help="turns; the median counts")] = 15,
    seed: int = 0,
    cpu: Annotated[bool, typer.Option("--cpu", help="time of the process, on one thread")] = False,
    only_large: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print every ratio, with the command, the hardware and the expected values."""
    if only_large is not None:
        large(rows, dim, seed, only_large)
        return
    from sensorium.scripts.benchmarks.timing import machine

    print(
        "command    "
        + " ".join(["python -m sensorium.scripts.benchmarks.retrieval", *sys.argv[1:]])
    )
    print(f"hardware   {machine()}; seed {seed}, {rows} x {dim}, k {K}, median of {rounds}")
    with tempfile.TemporaryDirectory(prefix="sensorium-bench-") as work:
        index = filled(f"{work}/index", rows, dim, seed)
        corpus = np.concatenate(list(vectors(rows, dim, seed)))
        (queries,) = vectors(64, dim, seed, start=rows)
        exact(index, corpus, queries, rounds, time.process_time if cpu else time.perf_counter)
        approximate(index, queries, rounds)
        if large_rows:
            command = [
                sys.executable,
                "-m",
                "sensorium.scripts.benchmarks.retrieval",
                "--rows",
                str(large_rows),
            ]
            command += ["--dim", str(dim), "--seed", str(seed), "--only-large", f"{work}/large"]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    typer.run(main)
