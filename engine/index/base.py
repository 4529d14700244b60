"""Embeddings that can be searched: a store of vectors and of metadata of each row.

`Index` is all that embedding and retrieval see of it. The place chooses the store: LanceDB,
embedded, in a folder or on object storage (`lance_index.py`), or Milvus at `milvus://...`
(`milvus_index.py`).

Legend: `Q` queries, `D` width of a vector, `k` hits of a query.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from ...modalities.messages import did_you_mean
from ..recipe import load
from ..utils import ConfigError
from .forms import Form, Storage, form_of

Kind = Literal["exact", "hnsw", "ivf", "ivf_pq"]
KINDS: tuple[Kind, ...] = ("exact", "hnsw", "ivf", "ivf_pq")

KEY, VECTOR, SPLIT = "key", "vector", "split"
DATA, ROW, IDENTITY, FILES = "_data", "_row", "_identity", "_files"
RESERVED_COLUMNS = (KEY, VECTOR, SPLIT, DATA, ROW, IDENTITY, FILES)
"""Columns of every index: the row's key, its vector, the split it is of, the data set (JSON), its
place in there, the hash of its source, and the absolute paths that its cell names. All
other columns are the data's own."""

FORMAT = 3

Scalar = str | int | float | bool
Queries = Sequence[Any] | np.ndarray
"""Vectors of the form of an index, one a query."""


@dataclass(frozen=True)
class IndexMetadata:
    """What made an index. run: the run's folder or recipe, changed by `overrides`. prints: the
    fingerprint of every stream of that run, encoder, connector and preprocessing in one;
    `stream` is the one whose vectors these are. dim: width of the vectors, perhaps the first
    coordinates of the stream's alone. form: `dense`, `sparse` or `multi_vector`. storage: of dense
    ones, see `forms.py`."""

    run: str
    stream: str
    modality: str
    dim: int
    precision: str
    fingerprints: Mapping[str, str]
    overrides: tuple[str, ...] = ()
    form: Form = "dense"
    storage: Storage = "float32"

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def from_json(cls, text: str, where: str) -> IndexMetadata:
        """Raise ConfigError if the text is no metadata of this format."""
        try:
            values = json.loads(text)
            if (written := values.pop("format")) != FORMAT:
                raise ValueError(f"it has format {written}, expected {FORMAT}; embed again")
            return cls(**{**values, "overrides": tuple(values["overrides"])})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{where}: is no index that can be read here ({error})") from error


@dataclass(frozen=True)
class Entry:
    """A row on its way into an index. vector: as its form holds it, see `forms.py`. identity: 16
    bytes that change when the row does. files: the absolute paths of the files and folders that its
    cell names."""

    key: str
    split: str
    data: str
    row: int
    identity: bytes
    vector: Any
    columns: Mapping[str, Scalar | None]
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hit:
    """A row that was found. score: the cosine, from -1 to 1; of sparse vectors the dot product, of
    one vector a token MaxSim. row: its columns, without vector."""

    score: float
    row: dict[str, Any]

    @property
    def key(self) -> str:
        return str(self.row[KEY])

    def columns(self) -> dict[str, Any]:
        """Return the columns for a person: the key first, then the split and the data's own."""
        columns = {
            name: v
            for name, v in self.row.items()
            if name not in RESERVED_COLUMNS and v is not None
        }
        split = {SPLIT: self.row[SPLIT]} if self.row.get(SPLIT) else {}
        return {KEY: self.key, **split, **columns}


@dataclass(frozen=True)
class Added:
    """The result of `add`: numbers of new rows, and of rows that replaced older ones."""

    new: int = 0
    replaced: int = 0

    def __add__(self, other: Added) -> Added:
        return Added(self.new + other.new, self.replaced + other.replaced)


@dataclass(frozen=True)
class SearchOptions:
    """How far an approximate search looks. nprobes: the lists of `ivf` and `ivf_pq` that are looked
    in. refine: of `ivf_pq`, so many times k of the nearest by quantized vectors are compared again
    by the vectors themselves. None: the index's own default."""

    nprobes: int | None = None
    refine: int | None = None


_OPTION_KINDS: dict[str, tuple[Kind, ...]] = {"nprobes": ("ivf", "ivf_pq"), "refine": ("ivf_pq",)}


class Index(Protocol):
    """Vectors with their columns. Rows of one data set have unique keys."""

    @property
    def metadata(self) -> IndexMetadata: ...

    def add(self, entries: Sequence[Entry]) -> Added:
        """Write rows in one commit; one whose data set and key are there already takes its place.
        Raise RuntimeFailure for a value that its column cannot take."""

    def remove(self, identities: Sequence[bytes]) -> int:
        """Take the rows of these identities out in one commit, and return how many there were."""

    def optimize(self) -> None:
        """Called after a run of `add`s: may make reading faster, and changes no row."""

    def count(self, where: str | None = None) -> int:
        """Return the number of rows, or of those that an SQL condition holds for; ConfigError where
        it cannot be read."""

    def where(self, condition: str | None, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Columns of the rows that an SQL condition holds for, in order, a block at a time."""

    def identities(self) -> np.ndarray:
        """Return `[rows]` of 16 bytes, sorted: those of the rows in the index."""

    def search(
        self,
        queries: Queries,
        k: int,
        *,
        where: str | None = None,
        kind: Kind = "exact",
        options: SearchOptions = ...,
    ) -> list[list[Hit]]:
        """Return the k nearest rows of each of queries, Q vectors, best first; all of them where
        there are fewer. Of equal scores the earlier row comes first. Raise ConfigError for a width
        that does not fit, a k below 1, a condition that cannot be read."""


LANCE = "sensorium.engine.index.lance_index:LanceIndex"
STORES = {"milvus": "sensorium.engine.index.milvus_index:MilvusIndex"}
"""Scheme of an address -> the class that keeps its indices: `open(place)`, `create(place,
metadata)`, `exists(place)`. Folders and all other addresses are Lance's, which reads object storage
by the storage options of its environment (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...)."""


def _store(uri: str) -> Any:
    return load(STORES.get(uri.partition("://")[0], LANCE))


def open_index(uri: str) -> Index:
    """Return the index at a folder or address. Raise ConfigError if there is none."""
    index: Index = _store(uri).open(uri)
    return index


def create_index(uri: str, metadata: IndexMetadata) -> Index:
    """Return a new, empty index at a folder or address."""
    index: Index = _store(uri).create(uri, metadata)
    return index


def exists(uri: str) -> bool:
    """Return whether there is an index at a folder or address."""
    return bool(_store(uri).exists(uri))


def missing_index(uri: str) -> ConfigError:
    """Return the error about a place without an index."""
    return ConfigError(
        f"{uri}: there is no index here; make one with: "
        f"sensorium embed RUN --stream NAME --data ... --out {uri}"
    )


def check_kind(kind: Kind, options: SearchOptions, metadata: IndexMetadata, where: str) -> None:
    """Raise ConfigError for a kind of search that vectors do not have, and for options that it does
    not have."""
    if kind != "exact" and metadata.form != "dense":
        raise ConfigError(
            f"--search: {kind} is of dense vectors, {where} holds {metadata.form}; leave it out"
        )
    if kind == "ivf_pq" and metadata.storage != "float32":
        raise ConfigError(
            f"--search: ivf_pq quantizes float32 vectors, {where} holds {metadata.storage}; "
            "choose exact, hnsw or ivf"
        )
    for name, kinds in _OPTION_KINDS.items():
        value = getattr(options, name)
        if value is not None and kind not in kinds:
            raise ConfigError(f"--{name}: is an option of --search {' or '.join(kinds)}")
        if value is not None and value < 1:
            raise ConfigError(f"--{name}: found {value}, expected at least 1")


def as_kind(name: str) -> Kind:
    """Return a kind of search by its name, or ConfigError."""
    for kind in KINDS:
        if kind == name:
            return kind
    raise ConfigError(f"--search: there is no {name!r}{did_you_mean(name, KINDS)}")


def check_query(queries: Queries, k: int, metadata: IndexMetadata, where: str) -> Any:
    """Return queries as the form of an index compares them. Raise ConfigError with both numbers."""
    if k < 1:
        raise ConfigError(f"-k: found {k}, expected at least 1")
    if metadata.form != "sparse":
        width = int(np.shape(queries[0] if np.ndim(queries[0]) else queries)[-1])
        if width != metadata.dim:
            raise ConfigError(
                f"{where}: holds vectors of width {metadata.dim}, the query has {width}; "
                "query with the run that made the index"
            )
    rows = np.atleast_2d(np.asarray(queries)) if metadata.form == "dense" else queries
    return form_of(metadata.form, metadata.storage, metadata.dim).queries(list(rows))
