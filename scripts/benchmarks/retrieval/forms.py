"""python -m sensorium.scripts.benchmarks.retrieval.forms [--rows 20000] [--rounds 15]

Searching sparse and multi-vector indexes against the bare products, in turns, on one thread.
Expected is at least 0.9 of their speed. Sparse: `scipy.sparse` products of the same matrix, `rows @
queries.T` and, with the rows by entry, `queries @ entries`. Late interaction: MaxSim of torch over
passages padded to the longest.

Timed is the search alone: scores and row ids of the ten best, for vectors that are there already;
the peers stop at the scores, of which `torch.topk` takes ten.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer

K = 10
VOCABULARY = 30_522
ENTRIES, QUERY_ENTRIES = 100, 30
TOKENS, QUERY_TOKENS, DIM = (20, 80), 32, 128


def sparse_vectors(count: int, entries: int, rng: np.random.Generator) -> list[Any]:
    """Return indices and values of vectors whose entries follow Zipf's law, as words do."""
    shares = 1 / np.arange(1, VOCABULARY + 1) ** 0.8
    draws = rng.choice(VOCABULARY, (count, entries), p=shares / shares.sum()).astype(np.int32)
    indices = [np.unique(row) for row in draws]
    return [(row, rng.random(len(row), dtype=np.float32)) for row in indices]


def csr(rows: list[Any]) -> Any:
    """Return vectors as a matrix of scipy."""
    from scipy.sparse import csr_array

    starts = np.concatenate([[0], np.cumsum([len(indices) for indices, _ in rows])])
    indices, values = (np.concatenate(part) for part in zip(*rows, strict=True))
    return csr_array((values, indices, starts.astype(np.int32)), shape=(len(rows), VOCABULARY))


def token_vectors(count: int, tokens: tuple[int, int], rng: np.random.Generator) -> list[Any]:
    """Return unit vectors of random numbers of tokens."""
    lengths = rng.integers(tokens[0], tokens[1] + 1, count)
    rows = [rng.standard_normal((length, DIM), dtype=np.float32) for length in lengths]
    return [row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows]


def filled(uri: str, form: Any, dim: int, rows: list[Any]) -> Any:
    """Return an index of these vectors."""
    from sensorium.engine.index import Entry, IndexMetadata, create_index

    about = IndexMetadata("bench", "x", "none", dim, "fp32", {"x": "0"}, form=form)
    index = create_index(uri, about)
    entries = enumerate(rows)
    index.add([Entry(str(i), "", "{}", i, i.to_bytes(16, "big"), v, {}) for i, v in entries])
    index.optimize()
    return index


def best(scores: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(scores)).topk(K)


def compare(
    name: str,
    index: Any,
    queries: list[Any],
    peers: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float],
) -> None:
    """Print the times, and ours as a share of the fastest peer's speed; the scores are equal."""
    from sensorium.scripts.benchmarks.timing import interleaved_median

    ours = index.nearest(queries, K)[0]
    for peer in peers.values():
        np.testing.assert_allclose(ours, peer().values.numpy(), rtol=1e-4, atol=1e-4)
    ways: dict[str, Callable[[], Any]] = {"sensorium": partial(index.nearest, queries, K)} | dict(
        peers
    )
    seconds_of = interleaved_median(ways, rounds, clock)
    times = "  ".join(f"{way} {seconds * 1e3:.2f} ms" for way, seconds in seconds_of.items())
    ratios = ", ".join(f"{seconds_of[peer] / seconds_of['sensorium']:.2f}" for peer in peers)
    print(f"{name}, batch {len(queries):<3} {times}  speed / the peers' {ratios}")


def sparse(folder: str, count: int, seed: int, rounds: int, clock: Callable[[], float]) -> None:
    rng = np.random.default_rng(seed)
    rows = sparse_vectors(count, ENTRIES, rng)
    index, matrix = (
        filled(f"{folder}/sparse", "sparse", VOCABULARY, rows),
        csr(rows),
    )
    by_entry = matrix.T.tocsr()
    for batch in (1, 64):
        queries = sparse_vectors(batch, QUERY_ENTRIES, rng)
        asked = csr(queries)
        peers = {
            "rows @ queries.T": partial(_rows_first, matrix, asked),
            "queries @ entries": partial(_entries, asked, by_entry),
        }
        compare("sparse", index, queries, peers, rounds, clock)


def _rows_first(matrix: Any, queries: Any) -> Any:
    return best((matrix @ queries.T).toarray().T)


def _entries(queries: Any, by_entry: Any) -> Any:
    return best((queries @ by_entry).toarray())


def late(folder: str, count: int, seed: int, rounds: int, clock: Callable[[], float]) -> None:
    import torch

    rng = np.random.default_rng(seed)
    rows = token_vectors(count, TOKENS, rng)
    index = filled(f"{folder}/late", "multi_vector", DIM, rows)
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(r) for r in rows], batch_first=True)
    mask = torch.arange(padded.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    for batch in (1, 4):
        queries = token_vectors(batch, (QUERY_TOKENS, QUERY_TOKENS), rng)

        def maxsim(queries: list[Any] = queries) -> Any:
            scores = [
                (padded @ torch.from_numpy(query).T)
                .masked_fill(~mask[..., None], -torch.inf)
                .amax(1)
                .sum(1)
                for query in queries
            ]
            return torch.stack(scores).topk(K)

        compare("late interaction", index, queries, {"torch": maxsim}, rounds, clock)


def main(
    rows: Annotated[int, typer.Option(help="rows of the sparse table")] = 20_000,
    passages: Annotated[int, typer.Option(help="rows of the table of tokens")] = 3_000,
    rounds: Annotated[int, typer.Option(help="turns; the median counts")] = 15,
    seed: int = 0,
    cpu: Annotated[bool, typer.Option("--cpu", help="time of the process")] = False,
) -> None:
    """Print every ratio, with the command and the hardware."""
    import torch

    from sensorium.scripts.benchmarks.timing import machine

    torch.set_num_threads(1)
    clock = time.process_time if cpu else time.perf_counter
    command = " ".join(["python -m sensorium.scripts.benchmarks.retrieval.forms", *sys.argv[1:]])
    print(f"command    {command}\nhardware   {machine()}; seed {seed}, median of {rounds}")
    with tempfile.TemporaryDirectory(prefix="sensorium-bench-") as folder:
        sparse(folder, rows, seed, rounds, clock)
        late(folder, passages, seed, rounds, clock)


if __name__ == "__main__":
    typer.run(main)
