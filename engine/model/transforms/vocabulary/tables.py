"""Tables of tokens: where a network keeps rows of its vocabulary, exchanged or factorized."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from .....modalities.base import PositiveInt
from ..context import TransformContext

Rows = Callable[[Tensor], Tensor]
"""The tensor of the old vocabulary `[V, ...]` -> that of the new one `[W, ...]`."""


def networks(module: nn.Module) -> list[Any]:
    """Return the outermost models of transformers in a module."""
    by_path: dict[str, Any] = {}
    for path, inner in module.named_modules():
        within = any(path.startswith(f"{outer}." if outer else "") for outer in by_path)
        if isinstance(inner, PreTrainedModel) and not within:
            by_path[path] = inner
    return list(by_path.values())


def network(module: nn.Module) -> Any:
    """Return the one model of transformers in a module that has a table of tokens. Raise ValueError
    if there is none."""
    models = [model for model in networks(module) if _tables(model)]
    if len(models) != 1:
        raise ValueError(
            f"{type(module).__name__} has {len(models)} tables of tokens, expected one"
        )
    return models[0]


def _tables(model: Any) -> list[nn.Embedding]:
    """Return the embeddings of tokens in a model, the main one first."""
    embeddings: dict[int, nn.Embedding] = {}
    for inner in model.modules():
        if isinstance(inner, PreTrainedModel):
            try:
                table = inner.get_input_embeddings()
            except NotImplementedError:  # a model of pictures or sound
                continue
            if isinstance(table, nn.Embedding):
                embeddings.setdefault(id(table), table)
    return list(embeddings.values())


def table_of(model: Any) -> nn.Embedding:
    return _tables(model)[0]


def heads_of(model: Any) -> list[Any]:
    """Return the output layers of a model whose rows are those of its vocabulary."""
    size = table_of(model).num_embeddings
    inner = (m.get_output_embeddings() for m in model.modules() if isinstance(m, PreTrainedModel))
    heads = {id(head): head for head in inner if isinstance(head, nn.Linear)}
    return [head for head in heads.values() if head.weight.shape[0] == size]


def exchange_rows(model: Any, rows: Rows, size: int, padding: int | None) -> None:
    """Give every tensor over the vocabulary the rows of a new one of `size` tokens; tied tensors
    stay tied. padding: the new id of padding."""
    old = table_of(model).num_embeddings
    tables = [t for t in _tables(model) if t.num_embeddings == old]
    heads = heads_of(model)
    holders = {id(m) for m in (*tables, *heads)}
    tensors: dict[int, Tensor] = {}
    for holder, name, tensor in _of_vocabulary(model, old, holders):
        if id(tensor) not in tensors:
            changed = _changed(tensor, rows, old)
            is_parameter = isinstance(tensor, nn.Parameter)
            tensors[id(tensor)] = (
                nn.Parameter(changed, tensor.requires_grad) if is_parameter else changed
            )
        parts = holder._parameters if name in holder._parameters else holder._buffers
        parts[name] = tensors[id(tensor)]  # type: ignore[assignment]
    for table in tables:
        table.num_embeddings = size
        table.padding_idx = None if table.padding_idx is None else padding
    for head in heads:
        head.out_features = size
    for inner in model.modules():
        config: Any = getattr(inner, "config", None)
        if getattr(config, "vocab_size", None) == old:
            config.vocab_size = size


def _changed(tensor: Tensor, rows: Rows, old: int) -> Tensor:
    if tensor.shape[0] == old:
        return rows(tensor.detach())
    return rows(tensor.detach().T).T.contiguous()  # the biases [1, V] of BART's kind


def _of_vocabulary(
    model: nn.Module, size: int, holders: set[int]
) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Yield (module, name, tensor) of everything with a row for each token."""
    for module in model.modules():
        lists = getattr(module, "parametrizations", {}) if id(module) in holders else {}
        for parametrization in lists.values() if lists else ():
            holders |= {id(parametrization)}
    for module in model.modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None:
                continue
            inside = id(module) in holders and tensor.shape[0] == size and name != "original1"
            bias = name.endswith("bias") and tensor.shape in ((size,), (1, size))
            if inside or (bias and getattr(module, "weight", None) is None):
                yield module, name, tensor


class LowRank(nn.Module):
    """A matrix `[V, D]` as a product of factors `[V, R]` and `[R, D]`."""

    def __init__(self, rank: int, values: bool = True) -> None:
        super().__init__()
        self.rank, self.values = rank, values

    def forward(self, rows: Tensor, columns: Tensor) -> Tensor:
        return rows @ columns

    def right_inverse(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of the nearest matrix of this rank (singular values shared alike)."""
        if not self.values:
            rows = torch.zeros(len(matrix), self.rank, dtype=matrix.dtype, device=matrix.device)
            return rows, rows.new_zeros(self.rank, matrix.shape[1])
        u, s, v = torch.linalg.svd(matrix.float(), full_matrices=False)
        root = s[: self.rank].sqrt()
        rows, columns = u[:, : self.rank] * root, root[:, None] * v[: self.rank]
        return rows.to(matrix.dtype), columns.to(matrix.dtype)


def factorize_embeddings(module: nn.Module, context: TransformContext, rank: PositiveInt) -> None:
    """Keep the tables of tokens as products of two factors: rows `[V, rank]` and a matrix of all
    tokens `[rank, D]`, from the singular value decomposition (OFA: Liu et al. 2023; UNKs: Pfeiffer
    et al. 2020). What was tied stays tied.

    rank: the full width is the table itself. `train_only: {pattern: original0}` trains the rows
    alone, `original1` the shared matrix. A checkpoint's folder holds the product.
    """
    model = network(module)
    table = table_of(model)
    largest = min(table.weight.shape)
    if not 1 <= rank <= largest:
        raise ValueError(f"rank: found {rank}, expected one of 1 to {largest}")
    if parametrize.is_parametrized(table):
        raise ValueError("rank: the table of tokens is factorized already")
    tied = {id(each.weight) for each in _tables(model)}
    holders = [(each, id(each.weight)) for each in (*_tables(model), *heads_of(model))]
    shared: dict[int, Any] = {}
    for holder, key in holders:
        if key not in tied:
            continue
        trains = holder.weight.requires_grad
        product = LowRank(rank, context.values)
        parametrize.register_parametrization(holder, "weight", product, unsafe=True)
        parametrizations: Any = holder.parametrizations
        if key in shared:
            parametrizations["weight"] = shared[key]
        shared.setdefault(key, parametrizations["weight"])
        shared[key].requires_grad_(trains)
