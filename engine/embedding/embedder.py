"""One stream of a model as an embedder: cells in, vectors out.

The same object embeds rows and queries, so that both have passed the
same weights, preprocessing and precision; `fingerprint` identifies them.

Legend: `B` samples, `D` width of a vector.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ...modalities.base import Source
from ...modalities.messages import did_you_mean
from ...tasks.batch import Batch
from ..cache import encoder_identity, weights_hash, without_sources
from ..checkpoint import load_model
from ..data import RowList, StreamDataset, stream_readers
from ..index import Form, Queries
from ..model import Model, build
from ..recipe import is_remote, load_recipe
from ..utils import ConfigError, autocast, check_precision, pick


class Embedder:
    """A stream of a model, on a device, in `eval()`.

    form: of the vectors; dense ones, and those of tokens, are of unit length. dim: their first
    coordinates alone, made unit length again.
    """

    def __init__(
        self,
        model: Model,
        stream: str,
        device: torch.device | str | None = None,
        *,
        form: Form = "dense",
        dim: int | None = None,
    ) -> None:
        stream = resolve_stream(model, stream)
        self.device = pick(device)
        self.stream = model.stream(stream).to(self.device).eval()
        self.dim, self.form = dim or self.stream.dim, form
        self.name = stream
        self.readers = stream_readers(model.plan, model.encoders(), [stream])
        self.bags = frozenset({stream} if model.plan.streams[stream].is_bag else ())
        self.collator = model.collator()
        self.precision = model.precision

    def dataset(self, source: Source) -> StreamDataset:
        """Return the rows of a source with this stream prepared."""
        return StreamDataset(source, self.readers, many=self.bags, bags=self.bags)

    def vectors(self, batch: Batch) -> Queries:
        """Return one vector a row of a batch, float32: of `[B, D]`; of sparse ones the indices and
        values that are not zero; `[T, D]` of the tokens."""
        inputs = batch.to(self.device).streams[self.name]["main"]
        items = batch.bags.get(self.name)
        with torch.no_grad(), autocast(self.device, self.precision):
            features = self.stream.run(inputs, {}, items)
        if self.form == "multi_vector":
            tokens = F.normalize(features.tokens.float()[..., : self.dim], dim=-1).cpu().numpy()
            return [
                row[mask] for row, mask in zip(tokens, features.mask.cpu().numpy(), strict=True)
            ]
        vectors = features.pool().float()[:, : self.dim]
        if self.form == "dense":
            return F.normalize(vectors, dim=-1).cpu().numpy()
        rows = vectors.cpu().numpy()
        indices = [np.flatnonzero(row).astype(np.int32) for row in rows]
        return [(i, row[i]) for i, row in zip(indices, rows, strict=True)]

    def query(self, value: Any) -> Queries:
        """One value, as the modality's `read` takes it -> the vectors of one row. Raise
        ReadError."""
        row = self.dataset(RowList([{self.name: value}])).load(0)
        return self.vectors(self.collator("", [row]))


def resolve_stream(model: Model, name: str | None) -> str:
    """Return the stream of a name, or the only one that there is; ConfigError names those there
    are."""
    streams = list(model.plan.streams)
    if name in streams:
        return name
    if name is not None:
        raise ConfigError(f"--stream: there is no {name!r}{did_you_mean(name, streams)}")
    if not streams:
        raise ConfigError("--stream: the recipe has no stream to embed")
    if len(streams) != 1:
        raise ConfigError(f"--stream: which? there are: {', '.join(streams)}")
    return streams[0]


def load_run_or_recipe(
    source: str, overrides: Sequence[str] = (), precision: str | None = None
) -> Model:
    """Return the model of a run's folder or `hf-hub:...`, or of a recipe with its weights filled
    in."""
    if is_remote(source) or Path(source).is_dir():
        if overrides:
            raise ConfigError(f"{overrides[0]}: {source} is a run and takes no changes")
        return load_model(source, precision)
    check_precision(precision)
    model = build(load_recipe(source, overrides)).eval()
    model.precision = precision or model.precision
    return model


def fingerprint(model: Model, name: str) -> str:
    """Return a hash of a stream's encoder, connector, preprocessing, `read` and precision, without
    the code that they are written in: an index of a million volumes is not made again after every
    change of a comment."""
    part, plan = model.stream(name), model.plan.streams[name]
    identity = encoder_identity(
        part.encoder,
        read=plan.modality.read,
        prompt=plan.prompt,
        precision=model.precision,
        options=plan.encoder.cache_identity,
    )
    connector: dict[str, Any] = {}
    if part.connector is not None and plan.connector is not None:
        connector = {
            "class": f"{type(part.connector).__module__}:{type(part.connector).__qualname__}",
            "options": plan.connector.options,
            "weights": weights_hash(part.connector),
        }
    text = json.dumps([without_sources(identity), connector], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
