"""Search an index with a query of any stream of the run that made it, embedded by that stream.

Query and index have to come from the same weights and preprocessing; the index remembers the
fingerprint of every stream of its run, and another one is refused, by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from ...modalities.messages import did_you_mean
from ..index import DATA, FILES, ROW, Hit, Index, SearchOptions, as_kind, open_index
from ..index import text as text_of
from ..model import Model
from ..recipe import load
from ..utils import ConfigError, RuntimeFailure, check_precision, pick
from .data_spec import DataSpec, open_spec
from .embedder import Embedder, fingerprint, load_run_or_recipe
from .maker import check_compatible

UNREADABLE = (ValueError, KeyError, IndexError, TypeError, OSError)
"""Errors of a cell that cannot be read again."""


@dataclass(frozen=True)
class Query:
    """A query of an index. stream: a stream's name, or with `modality` that of the only one of its
    kind. option: the option that holds it, for errors. value: as the modality's `read` takes
    it."""

    stream: str
    value: str
    option: str
    modality: bool = False


def parse_query(
    values: Mapping[str, str], modalities: Mapping[str, str], named: str | None
) -> Query:
    """Return the one query of a command line: an option of `given` (`--text ...`), whose modality
    is in `modalities`, or `named`, a `--query STREAM=VALUE`."""
    queries = [Query(modalities[name], value, f"--{name}", True) for name, value in values.items()]
    if named is not None:
        stream, equals, value = named.partition("=")
        if not equals:
            raise ConfigError(f"--query: found {named!r}, expected STREAM=VALUE")
        queries.append(Query(stream, value, "--query"))
    if len(queries) != 1:
        options = ", ".join(f"--{name}" for name in modalities)
        raise ConfigError(
            f"retrieve: found {len(queries)} queries, expected one: {options}, --query"
        )
    return queries[0]


class Retriever:
    """An opened index, and the model that embeds its queries."""

    def __init__(
        self,
        uri: str,
        run: str | None = None,
        *,
        device: str | torch.device | None = None,
        precision: str | None = None,
    ) -> None:
        self.uri, self.device = uri, pick(device)
        self.index: Index = open_index(uri)
        check_precision(precision)
        if precision not in (None, self.index.metadata.precision):
            raise ConfigError(
                f"precision: {uri} was embedded in {self.index.metadata.precision}, found "
                f"{precision}; leave it out, or embed again into another --out"
            )
        self.run = run or self.index.metadata.run
        self._model: Model | None = None
        self._embedders: dict[str, Embedder] = {}

    def find(
        self,
        query: Query,
        k: int,
        *,
        where: str | None = None,
        kind: str = "exact",
        options: SearchOptions | None = None,
    ) -> list[Hit]:
        """Return the k nearest rows, best first. options: of an approximate search. Raise
        ConfigError, a line a mistake."""
        if not query.value.strip():
            raise ConfigError(f"{query.option}: the query is empty")
        if k < 1:
            raise ConfigError(f"-k: found {k}, expected at least 1")
        search_kind = as_kind(kind)
        if where is not None and not where.strip():
            raise ConfigError("--where: the condition is empty")
        if not self.index.count():
            raise ConfigError(f"{self.uri}: holds no row; embed some first")
        self.index.count(where)  # a condition that cannot be read, before a model is loaded
        vector = self._embedder(self.stream_of(query)).query(query.value)
        how_far = options or SearchOptions()
        return self.index.search(vector, k, where=where, kind=search_kind, options=how_far)[0]

    def stream_of(self, query: Query) -> str:
        """Return the stream that embeds a query."""
        inputs = self.model.plan.recipe.inputs
        if not query.modality:
            if query.stream not in inputs:
                raise ConfigError(
                    f"{query.option}: {self.run} has no stream {query.stream!r}"
                    f"{did_you_mean(query.stream, inputs)}"
                )
            return query.stream
        fits = [name for name, section in inputs.items() if section.modality == query.stream]
        if len(fits) != 1:
            has = ", ".join(f"{n} ({s.modality})" for n, s in inputs.items())
            cure = f"choose with --query {fits[0]}=..." if fits else f"it has {has}"
            raise ConfigError(
                f"{query.option}: {self.run} has {len(fits)} streams of {query.stream}; {cure}"
            )
        return fits[0]

    @property
    def model(self) -> Model:
        """The run's model; what embedded the index has not changed since."""
        if self._model is None:
            made_by = self.index.metadata.stream
            changes = self.index.metadata.overrides if self.run == self.index.metadata.run else ()
            model = load_run_or_recipe(self.run, changes, self.index.metadata.precision)
            now = fingerprint(model, made_by) if made_by in model.streams else "absent"
            check_compatible(self.uri, self.index.metadata, made_by, now, self.run)
            self._model = model
        return self._model

    def _embedder(self, stream: str) -> Embedder:
        if stream not in self._embedders:
            model, metadata = self.model, self.index.metadata
            # A stream that the index's run had not (a student) came later, to what made the index.
            if stream in metadata.fingerprints:
                check_compatible(self.uri, metadata, stream, fingerprint(model, stream), self.run)
            self._embedders[stream] = Embedder(
                model, stream, self.device, form=metadata.form, dim=metadata.dim
            )
        return self._embedders[stream]

    def show(self, stream: str, cell: Any) -> Markup:
        """Return a cell of a stream as its modality shows it."""
        modality = self.model.plan.streams[stream].modality
        return Markup(load(modality.preview)(load(modality.read)(cell)))

    def previews(self, hits: list[Hit]) -> list[Markup | str]:
        """Return a hit as its modality shows it, or why it cannot be shown."""
        opened: dict[str, DataSpec] = {}
        return [self._preview(hit, opened) for hit in hits]

    def _preview(self, hit: Hit, opened: dict[str, DataSpec]) -> Markup | str:
        stream = self.index.metadata.stream
        try:
            if isinstance(hit.row.get(stream), str) and hit.row[FILES]:
                return self.show(stream, hit.row[FILES][0])
            return self.show(stream, self.cell(hit, opened))
        except (*UNREADABLE, RuntimeFailure) as error:
            return f"it cannot be shown here: {error}"

    def cell(self, hit: Hit, opened: dict[str, DataSpec]) -> Any:
        """Return a hit's cell of the index's stream: its text, its file, or the cell of its data
        set. Raise one of `UNREADABLE` or RuntimeFailure if it is not there any more.

        opened: data sets by their name, to which new ones are added.
        """
        stream = self.index.metadata.stream
        if isinstance(hit.row.get(stream), str):  # a path, or the text itself
            files = hit.row[FILES]
            return Path(files[0]) if files else hit.row[stream]
        text = hit.row[DATA]
        if text not in opened:
            opened[text] = open_spec(self.model.plan, stream, text)
        source, index = opened[text].source, hit.row[ROW]
        if text_of(source.key(index)) != hit.key:
            raise ValueError("the data set has changed since it was embedded")
        return source[index][stream]
