"""Another vocabulary for a trained model: `swap_vocabulary`.

Tokens that both vocabularies have keep their rows in every tensor over the vocabulary: tables,
output layers, biases. The others are initialized by the method.

Legend: `V` old and `W` new tokens, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from scipy import sparse
from torch import Tensor

from .....modalities.base import PositiveFloat, PositiveInt, Tokenizer
from ..context import TransformContext
from .pieces import ngram_features, pieces, read_tokenizer, script
from .tables import exchange_rows, network, networks, table_of

Method = Literal["mean", "ofa", "map", "script", "least_squares"]
CHUNK = 1024
"""New tokens whose similarities to all old ones are held at once."""

SPECIAL = {"pad_token_id": "pad_id", "bos_token_id": "bos_id", "eos_token_id": "eos_id"}


@dataclass(frozen=True)
class Vocabularies:
    """old, new: pieces by id. copies: (new id, old id) of the tokens that both have. special: old
    ids that are no text, from which nothing is mixed."""

    old: list[str]
    new: list[str]
    copies: tuple[list[int], list[int]]

    @property
    def unknown(self) -> list[int]:
        known = set(self.copies[0])
        return [i for i in range(len(self.new)) if i not in known]


def swap_vocabulary(
    module: Any,
    context: TransformContext,
    by: Method = "ofa",
    source: str | None = None,
    tokenizer: str | None = None,
    vectors: str | None = None,
    k: PositiveInt = 10,
    temperature: PositiveFloat = 0.1,
    small: str | None = None,
) -> None:
    """Exchange the vocabulary of a model for that of the part's tokenizer.

    by: the initialization of a new token. `mean`: near the mean of all rows. `ofa`: a
    mix of the `k` most similar tokens by a softmax of the similarity over `temperature` (OFA: Liu
    et al. 2023; behind `factorize_embeddings` the factors are mixed). `map`: the rows to which a
    linear map, fitted on the old tokens by ridge regression, maps descriptions of new ones (in
    place of the hypernetwork of HyperOFA: Özeren et al. 2025). `script`: a draw from the mean and
    deviation of the rows of its script and position in a word (Downey et al. 2023).
    `least_squares`: its row in the table of `small`, a checkpoint trained on the new vocabulary,
    mapped to this width as fits the shared tokens best (de Vries and Nissim 2020).

    source: the folder, hub id or run that the old tokenizer is read from; by default where the
    weights come from. tokenizer: the folder of the new one, for `sensorium convert`. vectors: a
    safetensors file with `old [V, C]` and `new [W, C]` that describe the tokens (word vectors);
    otherwise their character n-grams do.
    """
    new = context.tokenizer if tokenizer is None else read_tokenizer(tokenizer, context)
    if new is None:
        raise ValueError("tokenizer: name the folder that holds the new one")
    if k < 1 or temperature <= 0:
        raise ValueError("k, temperature: found none of it, expected numbers above 0")
    if (by == "least_squares") != (small is not None):
        raise ValueError("small: belongs to by: least_squares, which needs it")
    model = network(module)
    if not context.values:
        exchange_rows(model, lambda old: _blank(old, new.size), new.size, new.pad_id)
        return
    origin = source or context.name
    if origin is None:
        raise ValueError("source: name the folder of the old tokenizer")
    words = _compared(read_tokenizer(origin, context), new, table_of(model).num_embeddings)
    rows = _method(by, words, vectors, k, temperature, small, context)
    exchange_rows(model, lambda old: _filled(old, rows, words), new.size, new.pad_id)
    _name_special(model, new)


def _blank(old: Tensor, size: int) -> Tensor:
    return old.new_zeros(size, *old.shape[1:])


def _compared(old: Tokenizer, new: Tokenizer, size: int) -> Vocabularies:
    if old.size > size:
        raise ValueError(f"source: its tokenizer has {old.size} ids, the model {size} rows")
    before, after = pieces(old), pieces(new)
    places: dict[str, int] = {}
    for index, piece in enumerate(before):
        places.setdefault(piece, index)
    shared = [(i, places[p]) for i, p in enumerate(after) if p in places and "<unused" not in p]
    return Vocabularies(before, after, ([i for i, _ in shared], [j for _, j in shared]))


def _filled(old: Tensor, rows: Callable[[Tensor], Tensor], words: Vocabularies) -> Tensor:
    """Return the rows of the new vocabulary: known tokens' copied, the others by the method."""
    flat = old.reshape(len(old), -1)
    filled = flat.new_zeros(len(words.new), flat.shape[1])
    copied, sources = words.copies
    filled[copied] = flat[sources]
    if words.unknown:
        filled[words.unknown] = rows(flat[: len(words.old)].float()).to(flat.dtype)
    return filled.reshape(len(words.new), *old.shape[1:])


def _name_special(model: Any, tokenizer: Tokenizer) -> None:
    configs = [
        getattr(m, c, None) for m in model.modules() for c in ("config", "generation_config")
    ]
    for config in {id(c): c for c in configs if c is not None}.values():
        for field, role in SPECIAL.items():
            if getattr(config, field, None) is not None:
                setattr(config, field, getattr(tokenizer, role))


def _method(
    by: str,
    words: Vocabularies,
    vectors: str | None,
    k: int,
    temperature: float,
    small: str | None,
    context: TransformContext,
) -> Callable[[Tensor], Tensor]:
    """Return the function from old rows `[V, D]` to those of the unknown tokens `[U, D]`."""
    if by == "mean":
        return lambda old: (
            old.mean(0) + 0.1 * old.std(0) * torch.randn(len(words.unknown), old.shape[1])
        )
    if by == "script":
        return lambda old: _draws(old, words)
    if by == "least_squares":
        assert small is not None
        return _mapped_from(small, words, context)
    old, new = _descriptions(words, vectors)
    if by == "ofa":
        return lambda rows: torch.from_numpy(mixes(old, new, k, temperature) @ rows.numpy())
    return lambda rows: ridge(old, rows, new)


def _descriptions(words: Vocabularies, vectors: str | None) -> tuple[Any, Any]:
    """Return vectors of length one of the old and of the unknown tokens."""
    if vectors is None:
        return ngram_features(words.old), ngram_features([words.new[i] for i in words.unknown])
    file: Mapping[str, Tensor] = load_file(vectors)
    sizes = {"old": len(words.old), "new": len(words.new)}
    for name, size in sizes.items():
        if name not in file or file[name].ndim != 2 or len(file[name]) != size:
            shape = tuple(file[name].shape) if name in file else "none"
            raise ValueError(
                f"vectors: {name} is {shape}, expected a row for each of {size} tokens"
            )
    unit = {n: torch.nn.functional.normalize(file[n].float(), dim=1).numpy() for n in sizes}
    return unit["old"], unit["new"][words.unknown]


def mixes(old: Any, new: Any, k: int, temperature: float) -> sparse.csr_array:
    """Return the shares `[U, V]` (sparse) of old tokens in each new one: at most `k`, above or
    equal 0, of sum 1."""
    indices, shares = [], []
    for start in range(0, new.shape[0], CHUNK):
        similar = new[start : start + CHUNK] @ old.T
        dense = torch.from_numpy(np.asarray(similar.todense() if hasattr(similar, "todense")
                                            else similar))  # fmt: skip
        best = dense.topk(min(k, dense.shape[1]), dim=1)
        indices.append(best.indices)
        shares.append((best.values / temperature).softmax(1))
    columns, values = torch.cat(indices), torch.cat(shares)
    rows = torch.arange(len(columns))[:, None].expand_as(columns)
    places = (rows.flatten().numpy(), columns.flatten().numpy())
    return sparse.csr_array(
        (values.flatten().float().numpy(), places), shape=(new.shape[0], old.shape[0])
    )


STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties of the ridge regression, of which a tenth of the known tokens chooses one."""


def ridge(old: Any, rows: Tensor, new: Any) -> Tensor:
    """Return new tokens' rows by a linear map from descriptions, fitted on the old tokens."""
    values = rows.numpy().astype(np.float64)
    held = np.arange(len(values)) % 10 == 9
    strength = STRENGTHS[-1]
    if held.any():
        errors = [
            np.square(_predicted(old[~held], values[~held], old[held], each) - values[held]).sum()
            for each in STRENGTHS
        ]
        strength = STRENGTHS[int(np.argmin(errors))]
    return torch.from_numpy(_predicted(old, values, new, strength)).float()


def _predicted(old: Any, values: Any, new: Any, strength: float) -> Any:
    mean = values.mean(0)
    gram = old.T @ old
    gram = np.asarray(gram.todense() if hasattr(gram, "todense") else gram, np.float64)
    right = np.asarray(old.T @ (values - mean), np.float64)
    weights = np.linalg.solve(gram + strength * np.eye(len(gram)), right)
    return np.asarray(new @ weights + mean)


def _draws(old: Tensor, words: Vocabularies) -> Tensor:
    """Draw rows from the statistics of old rows of the same script and position; of the same
    script, or of all, where fewer than two are known."""
    groups: dict[Any, list[int]] = {}
    for index, piece in enumerate(words.old):
        kind = script(piece)
        for key in (kind, kind[0], None):
            groups.setdefault(key, []).append(index)
    drawn = []
    for index in words.unknown:
        kind = script(words.new[index])
        members = next(g for key in (kind, kind[0], None) if len(g := groups.get(key, [])) > 1)
        rows = old[members]
        drawn.append(rows.mean(0) + rows.std(0) * torch.randn(old.shape[1]))
    return torch.stack(drawn)


def _mapped_from(
    small: str, words: Vocabularies, context: TransformContext
) -> Callable[[Tensor], Tensor]:
    from transformers import AutoModel

    from .....modalities.messages import quiet_loading

    with quiet_loading():
        other = AutoModel.from_pretrained(small, use_safetensors=True)
    (model,) = networks(other)
    table = table_of(model).weight.detach().float()  # [W, D of the small model]
    if len(table) < len(words.new):
        raise ValueError(f"small: has {len(table)} rows, the new tokenizer {len(words.new)} ids")
    new, old = words.copies
    if not new:
        raise ValueError("small: the two vocabularies share no token, so no mapping can be fitted")

    def rows(values: Tensor) -> Tensor:
        solution = torch.linalg.lstsq(table[new].double(), values[old].double(), driver="gelsd")
        return (table[words.unknown].double() @ solution.solution).float()

    return rows
