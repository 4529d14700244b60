"""An index in Milvus: `milvus://host:19530/collection` of a server, `milvus:///path/index.db` of
Milvus Lite, which runs in this process.

A condition is Milvus's own expression (`split == 'test' and age > 60`), and its index is of exact
search. Dense float32 vectors and sparse ones; rows that share no entry with a sparse query are no
hits.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..recipe import import_optional
from ..utils import ConfigError, RuntimeFailure, make_folder
from .arrow import check_unique, text
from .base import (
    DATA,
    FILES,
    IDENTITY,
    KEY,
    ROW,
    SPLIT,
    VECTOR,
    Added,
    Entry,
    Hit,
    IndexMetadata,
    Kind,
    Queries,
    SearchOptions,
    check_query,
    missing_index,
)

SCHEME = "milvus://"
COLLECTION = "embeddings"
METADATA = "sensorium"
PRIMARY = "_id"
"""The primary key: a hash of a row's data set and key, so that a row that comes again takes its
place."""

ROWS = 1000
"""Rows that are sent and read at a time."""

LIMIT = 16_384
"""The most hits that Milvus returns."""

TOKEN = "MILVUS_TOKEN"


class MilvusIndex:
    """An `Index` in a Milvus collection."""

    def __init__(self, uri: str, client: Any, collection: str) -> None:
        self.uri, self._client, self._collection = uri, client, collection
        described = _call(uri, client.describe_collection, collection)
        self._metadata = IndexMetadata.from_json(described["properties"].get(METADATA, "{}"), uri)

    @property
    def metadata(self) -> IndexMetadata:
        return self._metadata

    @classmethod
    def exists(cls, uri: str) -> bool:
        address, collection = _place(uri)
        if _is_file(address) and not Path(address).exists():
            return False
        return bool(_call(uri, _connect(uri).has_collection, collection))

    @classmethod
    def open(cls, uri: str) -> MilvusIndex:
        if not cls.exists(uri):
            raise missing_index(uri)
        return cls(uri, _connect(uri), _place(uri)[1])

    @classmethod
    def create(cls, uri: str, metadata: IndexMetadata) -> MilvusIndex:
        """Make an empty index, or open the one that is there."""
        if metadata.form == "multi_vector" or metadata.storage != "float32":
            kind = metadata.form if metadata.form == "multi_vector" else metadata.storage
            raise ConfigError(
                f"--out: {uri}: milvus takes dense float32 and sparse vectors, found {kind}; "
                "name a folder or s3://..."
            )
        address, collection = _place(uri)
        if _is_file(address):
            make_folder(Path(address).parent)
        if not cls.exists(uri):
            client = _connect(uri)
            schema, index = _schema(client, metadata)
            _call(
                uri,
                client.create_collection,
                collection,
                schema=schema,
                index_params=index,
                properties={METADATA: metadata.to_json()},
                consistency_level="Strong",
            )
        return cls.open(uri)

    def add(self, entries: Sequence[Entry]) -> Added:
        check_unique(entries)
        added = Added()
        for start in range(0, len(entries), ROWS):
            batch = entries[start : start + ROWS]
            rows = [self._row(entry) for entry in batch]
            ids = [row[PRIMARY] for row in rows]
            present = self._ask("get", ids=ids, output_fields=[PRIMARY])
            self._ask("upsert", data=rows)
            added += Added(len(batch) - len(present), len(present))
        return added

    def _row(self, entry: Entry) -> dict[str, Any]:
        named = f"{entry.data}\0{text(entry.key)}".encode()
        sparse = self._metadata.form == "sparse"
        vector = (
            {int(i): float(v) for i, v in zip(*entry.vector, strict=True)}
            if sparse
            else entry.vector.tolist()
        )
        columns = {name: value for name, value in entry.columns.items() if value is not None}
        return {
            **columns,
            PRIMARY: hashlib.blake2b(named, digest_size=16).hexdigest(),
            KEY: text(entry.key),
            SPLIT: entry.split,
            DATA: entry.data,
            ROW: entry.row,
            IDENTITY: entry.identity.hex(),
            FILES: [text(path) for path in entry.files],
            VECTOR: vector,
        }

    def remove(self, identities: Sequence[bytes]) -> int:
        before = self.count()
        for start in range(0, len(identities), ROWS):
            names = ", ".join(f"'{each.hex()}'" for each in identities[start : start + ROWS])
            self._ask("delete", filter=f"{IDENTITY} in [{names}]")
        return before - self.count()

    def optimize(self) -> None:
        """Milvus compacts by itself."""

    def count(self, where: str | None = None) -> int:
        (row,) = self._ask("query", filter=where or "", output_fields=["count(*)"])
        return int(row["count(*)"])

    def where(self, condition: str | None, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        names = list(columns)
        rows = self._ask(
            "query_iterator", batch_size=ROWS, filter=condition or "", output_fields=names
        )
        while batch := rows.next():
            yield from ({name: _value(name, row.get(name)) for name in names} for row in batch)

    def identities(self) -> np.ndarray:
        return np.sort(np.array([row[IDENTITY] for row in self.where(None, [IDENTITY])], "S16"))

    def search(
        self,
        queries: Queries,
        k: int,
        *,
        where: str | None = None,
        kind: Kind = "exact",
        options: SearchOptions | None = None,
    ) -> list[list[Hit]]:
        if kind != "exact" or (options and options != SearchOptions()):
            raise ConfigError(f"--search: {self.uri} is searched exactly; leave it out")
        check_query(queries, k, self._metadata, self.uri)
        if k > LIMIT:
            raise ConfigError(f"-k: found {k}, milvus returns at most {LIMIT}")
        if self._metadata.form == "sparse":
            data: Any = [dict(zip(i.tolist(), v.tolist(), strict=True)) for i, v in queries]
        else:
            data = np.atleast_2d(np.asarray(queries, np.float32)).tolist()
        results = self._ask(
            "search",
            data=data,
            anns_field=VECTOR,
            limit=k,
            filter=where or "",
            output_fields=["*"],
        )
        return [
            sorted((_hit(hit) for hit in hits), key=lambda hit: (-hit.score, hit.row[ROW]))
            for hits in results
        ]

    def _ask(self, method: str, **arguments: Any) -> Any:
        """Call the client on the collection."""
        return _call(self.uri, getattr(self._client, method), self._collection, **arguments)


def _hit(hit: Any) -> Hit:
    columns = {name: _value(name, value) for name, value in hit["entity"].items()}
    return Hit(float(hit["distance"]), {n: v for n, v in columns.items() if n != VECTOR})


def _value(name: str, value: Any) -> Any:
    return bytes.fromhex(value) if name == IDENTITY else value


def _schema(client: Any, metadata: IndexMetadata) -> tuple[Any, Any]:
    """Return the schema of a collection and the index of its vectors; the data's columns are
    dynamic fields."""
    types = import_optional("pymilvus").DataType
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field(PRIMARY, types.VARCHAR, is_primary=True, max_length=32)
    for name in (KEY, SPLIT, DATA, IDENTITY):
        schema.add_field(name, types.VARCHAR, max_length=65_535)
    schema.add_field(ROW, types.INT64)
    schema.add_field(FILES, types.JSON)
    index = client.prepare_index_params()
    if metadata.form == "sparse":
        schema.add_field(VECTOR, types.SPARSE_FLOAT_VECTOR)
        index.add_index(VECTOR, index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    else:
        schema.add_field(VECTOR, types.FLOAT_VECTOR, dim=metadata.dim)
        index.add_index(VECTOR, index_type="FLAT", metric_type="IP")
    return schema, index


def _place(uri: str) -> tuple[str, str]:
    """Return the address of a server or the path of a file, and the collection."""
    address = uri.removeprefix(SCHEME)
    if address.startswith("/"):
        return address, COLLECTION
    host, _, collection = address.partition("/")
    if not host:
        raise ConfigError(
            f"{uri}: names no server; expected milvus://host:port/collection or "
            "milvus:///path/index.db"
        )
    return f"http://{host}", collection or COLLECTION


def _is_file(address: str) -> bool:
    return address.startswith("/")


def _connect(uri: str) -> Any:
    pymilvus = import_optional("pymilvus")
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # its errors are raised too
    address, _ = _place(uri)
    if _is_file(address):
        import_optional("milvus_lite")
    return _call(uri, pymilvus.MilvusClient, address, token=os.environ.get(TOKEN, ""))


def _call(uri: str, function: Any, *arguments: Any, **options: Any) -> Any:
    """Call a client. Raise ConfigError for a condition that Milvus cannot read, RuntimeFailure for
    any other error of its own."""
    errors = import_optional("pymilvus").MilvusException
    try:
        return function(*arguments, **options)
    except errors as error:
        reason = " ".join(str(error.message).split())[:200]
        if options.get("filter"):
            raise ConfigError(f"--where: {reason} (an expression of Milvus)") from error
        raise RuntimeFailure(f"{uri}: {reason}") from error
