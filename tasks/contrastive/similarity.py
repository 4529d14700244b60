"""Similarities of embeddings: cosine, dot product, and the MaxSim of late interaction.

MaxSim: Khattab and Zaharia, "ColBERT", 2020, equation 3. FLOPS: Paria et al., "Minimizing FLOPs to
Learn Efficient Sparse Representations", 2020, as in SPLADE (Formal et al., 2021).

An embedding is a vector `[D]`, or with `maxsim` one vector a token, `[T, D]`, of which padding is
zero. Legend: `Q` queries, `C` candidates, `T` tokens, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...modalities.base import Features
from ..common import all_gather_with_grad, all_reduce_max, l2_normalize

Similarity = Literal["cosine", "dot", "maxsim"]


def embed(features: Features, similarity: str) -> Tensor:
    """Return the embeddings of a stream in float32: `[B, D]`, of unit length for `cosine`, or
    `[B, T, D]` of unit tokens for `maxsim`."""
    if similarity == "maxsim":
        return l2_normalize(features.tokens).masked_fill(~features.mask[..., None], 0.0)
    vectors = features.pool()
    return l2_normalize(vectors) if similarity == "cosine" else vectors.float()


def compare(similarity: str, queries: Tensor, candidates: Tensor) -> Tensor:
    """Return `[Q, C]`, the similarity of each query with each candidate."""
    if similarity == "maxsim":
        return maxsim(queries, candidates)
    return queries @ candidates.T


def compare_rows(similarity: str, queries: Tensor, candidates: Tensor) -> Tensor:
    """Return `[B]`, the similarity of each query with the candidate of its own row."""
    if similarity == "maxsim":
        return _best(torch.einsum("bid,bjd->bij", queries, candidates), candidates)
    return (queries * candidates).sum(1)


def maxsim(queries: Tensor, candidates: Tensor) -> Tensor:
    """Return `[Q, C]`, the sum over a query's tokens `[Q, T, D]` of the largest product with a
    candidate's `[C, T', D]`. Zero tokens are padding and add nothing."""
    return _best(torch.einsum("qid,cjd->qcij", queries, candidates), candidates[None])


def _best(products: Tensor, candidates: Tensor) -> Tensor:
    """products: `[..., T, T']`. candidates: `[..., T', D]`."""
    padding = ~candidates.detach().any(-1).unsqueeze(-2)
    best = products.masked_fill(padding, -torch.inf).amax(-1)
    return best.masked_fill(best.isneginf(), 0.0).sum(-1)


def flops(vectors: Tensor) -> Tensor:
    """Return `sum_v (mean |w_v|)^2` of vectors `[N, V]`: the expected number of products of two of
    them, made smooth."""
    return vectors.abs().mean(0).square().sum()


def gather_embeddings(local: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Return the embeddings of all processes by stream, and the first row of this process; a
    collective."""
    flat, shapes = [], []
    for vectors in local.values():
        if vectors.ndim == 3:
            vectors = F.pad(vectors, (0, 0, 0, _longest(vectors) - vectors.shape[1]))
        shapes.append(vectors.shape[1:])
        flat.append(vectors.flatten(1))
    packed, start = all_gather_with_grad(torch.cat(flat, 1))
    parts = packed.split([shape.numel() for shape in shapes], 1)
    gathered = {
        name: part.unflatten(1, shape)
        for name, part, shape in zip(local, parts, shapes, strict=True)
    }
    return gathered, start


def _longest(vectors: Tensor) -> int:
    """Return the most tokens that a process has; a collective."""
    if vectors.is_meta:
        return vectors.shape[1]
    return int(all_reduce_max(torch.tensor([vectors.shape[1]], device=vectors.device)))


def cat_embeddings(parts: Sequence[Tensor]) -> Tensor:
    """Return embeddings `[., D]` or `[., T, D]` below one another, padded to the longest."""
    longest = max((p.shape[1] for p in parts), default=0)
    if parts[0].ndim == 3:
        parts = [F.pad(p, (0, 0, 0, longest - p.shape[1])) for p in parts]
    return torch.cat(list(parts))


def to_json(vectors: Tensor, similarity: str) -> list[Any]:
    """Return one JSON value a row: a list; with `dot` a dict of the nonzero values and their
    indices; with `maxsim` a list of the real tokens' vectors."""
    if similarity == "cosine":
        return list(vectors.tolist())
    vectors = vectors.cpu()  # on the meta device it raises what `tolist` does
    if similarity == "maxsim":
        return [row[row.any(-1)].tolist() for row in vectors]
    rows = []
    for row in vectors:
        indices = row.nonzero()[:, 0]
        values = row[indices].tolist()
        rows.append({"indices": indices.tolist(), "values": values, "dim": len(row)})
    return rows


def from_json(rows: Sequence[Any]) -> Tensor:
    """Return the embeddings of rows that `to_json` wrote."""
    if rows and isinstance(rows[0], Mapping):
        vectors = torch.zeros(len(rows), rows[0]["dim"])
        for vector, row in zip(vectors, rows, strict=True):
            vector[row["indices"]] = torch.tensor(row["values"])
        return vectors
    if rows and isinstance(rows[0], list) and rows[0] and isinstance(rows[0][0], list):
        tokens = [torch.tensor(row) for row in rows]
        return nn.utils.rnn.pad_sequence(tokens, batch_first=True)
    return torch.tensor(rows)
