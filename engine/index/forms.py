"""Forms of vectors in an index: dense, in floats, bytes or bits; sparse; and one vector a token.

Bytes hold 127 times a coordinate, bits its sign. A search of bits compares signs first, then the
nearest ones' signs with the query's own coordinates (Yamada et al., "Efficient Passage Retrieval
with Hashing", 2021).

Legend: `Q` queries, `B` rows of a block, `D` width, `T` tokens, `k` hits of a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from ..utils import ConfigError
from .exact import LEVELS, DenseRows, MultiVectorRows, Rows, SparseRows

Form = Literal["dense", "sparse", "multi_vector"]
Storage = Literal["float32", "int8", "binary"]


class VectorForm(Protocol):
    """How vectors are kept in a column and compared."""

    def type(self) -> Any:
        """Return the column's Arrow type."""

    def array(self, vectors: Sequence[Any]) -> Any:
        """Return vectors as an Arrow array of that type."""

    def rows(self, column: Any) -> Rows:
        """Return a block of the column."""

    def queries(self, vectors: Sequence[Any]) -> Any:
        """Return vectors as `Rows.scores` takes them; its length is Q."""


def form_of(form: str, storage: str, dim: int) -> VectorForm:
    """Return the form of an index's vectors."""
    if form == "sparse":
        return SparseForm(dim)
    if form == "multi_vector":
        return MultiVectorForm(dim)
    return DenseForm(dim, storage)


def check_storage(form: str, storage: str, dim: int) -> None:
    """Raise ConfigError for a storage that a form does not have."""
    if storage != "float32" and form != "dense":
        raise ConfigError(f"--storage: found {storage} for {form} vectors; only dense ones have it")
    if storage == "binary" and dim % 8:
        raise ConfigError(
            f"--storage: binary keeps eight coordinates in a byte, found {dim}; choose --dim"
        )


@dataclass(frozen=True)
class DenseForm:
    """Unit vectors `[D]`."""

    dim: int
    storage: str = "float32"

    def type(self) -> Any:
        if self.storage == "binary":
            return pa.list_(pa.uint8(), self.dim // 8)
        return pa.list_(pa.int8() if self.storage == "int8" else pa.float32(), self.dim)

    def array(self, vectors: Sequence[np.ndarray]) -> Any:
        values: np.ndarray = np.stack(list(vectors)).astype(np.float32)
        if self.storage == "int8":
            values = np.rint(values.clip(-1, 1) * LEVELS).astype(np.int8)
        if self.storage == "binary":
            values = np.packbits(values > 0, axis=1)
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])

    def rows(self, column: Any) -> DenseRows:
        width = column.type.list_size
        return DenseRows(column.flatten().to_numpy().reshape(-1, width), self.storage)

    def queries(self, vectors: Sequence[np.ndarray]) -> np.ndarray:
        return np.ascontiguousarray(np.stack(list(vectors)), np.float32)


SparseVector = tuple[np.ndarray, np.ndarray]
"""indices int32, values float32."""


@dataclass(frozen=True)
class SparseQueries:
    matrix: Any

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def __getitem__(self, rows: Any) -> SparseQueries:
        return SparseQueries(self.matrix[rows])


@dataclass(frozen=True)
class SparseForm:
    """Sparse vectors of D entries, as pairs of indices and values."""

    dim: int

    def type(self) -> Any:
        entries = [("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))]
        return pa.struct(entries)

    def array(self, vectors: Sequence[SparseVector]) -> Any:
        rows = [{"indices": i, "values": v} for i, v in vectors]
        return pa.array(rows, type=self.type())

    def rows(self, column: Any) -> SparseRows:
        indices, values = column.field("indices"), column.field("values")
        starts = indices.offsets.to_numpy()
        matrix = csr_array(
            (values.flatten().to_numpy(), indices.flatten().to_numpy(), starts - starts[0]),
            shape=(len(column), self.dim),
        )
        return SparseRows(matrix)

    def queries(self, vectors: Sequence[SparseVector]) -> SparseQueries:
        lengths = [len(i) for i, _ in vectors]
        indices = np.concatenate([i for i, _ in vectors])
        values = np.concatenate([v for _, v in vectors]).astype(np.float32)
        # Of the rows' own integers: scipy casts both sides of a product to the wider ones.
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return SparseQueries(csr_array((values, indices, starts), shape=(len(vectors), self.dim)))


@dataclass(frozen=True)
class MultiVectorForm:
    """One unit vector `[D]` a token."""

    dim: int

    def type(self) -> Any:
        return pa.list_(pa.list_(pa.float32(), self.dim))

    def array(self, vectors: Sequence[np.ndarray]) -> Any:
        lengths = [len(tokens) for tokens in vectors]
        flat = np.concatenate([np.zeros((0, self.dim)), *vectors]).astype(np.float32)
        tokens = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), self.dim)
        starts = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        return pa.ListArray.from_arrays(starts, tokens)

    def rows(self, column: Any) -> MultiVectorRows:
        starts = column.offsets.to_numpy()
        tokens = column.flatten().flatten().to_numpy().reshape(-1, self.dim)
        return MultiVectorRows(tokens, starts - starts[0])

    def queries(self, vectors: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.ascontiguousarray(tokens, np.float32) for tokens in vectors]
