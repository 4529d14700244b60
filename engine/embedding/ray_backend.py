"""`embed` on many machines: the same encoder as Ray Data actors that write to one table.

Each actor loads the run, opens the data and the index by itself, and is handed places of rows;
a batch that is retried after a failure replaces the rows written of it.
The run, the data and the index have to be where every machine sees them.
"""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any

import numpy as np
import torch

from ...modalities.base import StreamingSource
from ..index import Added, IndexMetadata, open_index
from ..model import Model
from ..recipe import import_optional
from ..utils import ConfigError, RunLogger, pick
from .data_spec import DataSpec, open_spec
from .embed import COMMIT_ROWS, EmbedReport, finish, report, with_vectors
from .embedder import Embedder, load_run_or_recipe
from .maker import open_for
from .pending import EmbeddingBatch, PendingRows


class EmbedActor:
    """What runs on a machine: embeds the rows whose places it gets, and commits them."""

    def __init__(self, maker: IndexMetadata, text: str, out: str, batch: int, device: str) -> None:
        model = load_run_or_recipe(maker.run, maker.overrides, maker.precision)
        self.embedder = Embedder(model, maker.stream, device, form=maker.form, dim=maker.dim)
        data = open_spec(model.plan, maker.stream, text)
        dataset = self.embedder.dataset(data.source)
        self.rows = PendingRows(data, maker.stream, dataset, self.embedder.collator)
        self.index, self.batch = open_index(out), batch

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """`{"data": places}` -> one row: how many were added, and what went wrong, as JSON."""
        indices = [int(index) for index in rows["data"]]
        entries, messages = [], EmbeddingBatch()
        for start in range(0, len(indices), self.batch):
            prepared = self.rows.prepare(indices[start : start + self.batch])
            entries += with_vectors(prepared, self.embedder)
            messages.failed += prepared.failed
            messages.dropped_columns |= prepared.dropped_columns
        added = self.index.add(entries)
        return {
            "new": [added.new],
            "replaced": [added.replaced],
            "told": [json.dumps([messages.failed, sorted(messages.dropped_columns)])],
        }


def embed_with_ray(
    model: Model,
    maker: IndexMetadata,
    data: DataSpec,
    out: str,
    *,
    batch_size: int = 64,
    workers: int = 1,
    commit_rows: int = COMMIT_ROWS,
    prune: bool = False,
    log: RunLogger | None = None,
    device: str | torch.device | None = None,
) -> EmbedReport:
    """As `embed`, by `workers` actors: on the cluster that `RAY_ADDRESS` names, else on this
    machine. The same rows as the local engine's. Raise ConfigError for a streaming source."""
    if isinstance(data.source, StreamingSource):
        raise ConfigError(
            "--backend ray: distributes rows by index, which a streaming source has not; "
            "use --backend local, or give the source streaming=false"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "--backend ray: starts its own processes; start it without torchrun, or use "
            "--backend local"
        )
    start, chosen = time.monotonic(), pick(device)
    index = open_for(out, maker)
    embedder = Embedder(model, maker.stream, "cpu")
    dataset = embedder.dataset(data.source)
    pending = PendingRows(data, maker.stream, dataset, embedder.collator)
    pending.check_keys()
    indices = np.fromiter(pending.pending(index.identities()), dtype=np.int64)
    totals = EmbedReport(already_present=len(data.source) - len(indices))
    if len(indices):
        arguments = (maker, data.text, out, batch_size, str(chosen))
        for row in _rows(indices, arguments, max(1, workers), commit_rows):
            failed, dropped = json.loads(row["told"])
            messages = EmbeddingBatch(
                failed=[(key, reason) for key, reason in failed], dropped_columns=set(dropped)
            )
            totals.added += Added(row["new"], row["replaced"])
            report(messages, totals, log)
    totals.seconds = time.monotonic() - start
    finish(open_index(out), totals, data.text, np.sort(np.array(pending.identities, "S16")), prune)
    return totals


def _rows(indices: np.ndarray, arguments: tuple[Any, ...], workers: int, size: int) -> Any:
    """Yield the results of the actors as they arrive."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
    ray = import_optional("ray")
    import_optional("ray.data")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        parts = max(workers, -(-len(indices) // size))
        data = ray.data.from_numpy(np.array_split(indices, parts)).map_batches(
            EmbedActor,
            fn_constructor_args=arguments,
            batch_size=None,  # a part is a batch, and a commit
            num_gpus=1 if arguments[-1].startswith("cuda") else 0,
            compute=ray.data.ActorPoolStrategy(size=workers),
        )
        yield from data.iter_rows()
    finally:
        if started:
            ray.shutdown()
