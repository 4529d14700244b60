"""Signals as ids of a small vocabulary: the contract of their tokenizers, an encoder of the ids,
and a codebook.

A tokenizer belongs to a stream: `encoder: {type: tokens, tokenizer: {type: vq, codes: 512}}` reads
a signal and returns its ids as `Features.codes`, with a learned vector for each. A task targets
such a stream as it targets text (`signal_generation`).

Legend: `B` signals of a batch, `L` tokens of a signal, `K` codes, `D` width.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import tempfile
from abc import abstractmethod
from collections.abc import Collection, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as from_bytes
from safetensors.numpy import save as to_bytes
from torch import Tensor, nn

from . import MODALITIES
from .base import Encoder, Features, Fittable, Processor, ReadError, Sample
from .text_processor import fingerprint

SETTINGS, ARRAYS = "signal_tokenizer.json", "signal_tokenizer.safetensors"


class SignalTokenizer(Fittable):
    """Signals <-> ids in `[0, size)`, fitted on the training split.

    A signal is a raw value as its modality's `read` returns it; a subclass of one modality narrows
    the types and adds options (the action tokenizers: the number of steps). Where nothing is lost,
    `decode(encode(x)) == x`; always `encode(decode(ids)) == ids` for ids that `encode` returned. A
    constructor keeps its arguments as attributes of the same names.

    aligned: each id stands for an equal span of the signal. span: of how many seconds, if known.
    """

    kind: ClassVar[str | None] = "tokenizer"

    size: int
    aligned: bool = False
    span: float | None = None

    @abstractmethod
    def encode(self, signals: Any, *args: Any, **options: Any) -> Any:
        """Return the ids of each signal, `[L]` long. Raise ValueError for one that has none."""

    @abstractmethod
    def decode(self, ids: Any, *args: Any, **options: Any) -> Any:
        """Return the signal of each row of ids. Raise ValueError, with the position, for ids that
        are no signal."""

    def next_ids(self, ids: Sequence[int]) -> tuple[Collection[int], bool]:
        """Return the ids that may follow those of an incomplete signal, and whether it may end
        here. By default every id may, and a signal of one id or more may end."""
        return range(self.size), bool(ids)

    def save(self, folder: str | Path) -> None:
        """Write the options and the fitted state: JSON, and safetensors for arrays. Each file is
        written beside and moved into place; of two that do not belong together none is loaded."""
        path, state = Path(folder), self.state()
        path.mkdir(parents=True, exist_ok=True)
        arrays = {k: np.ascontiguousarray(v) for k, v in state.items() if isinstance(v, np.ndarray)}
        saved = {
            "type": type(self).__name__,
            "options": {name: getattr(self, name) for name in _options(type(self))},
            "state": {key: value for key, value in state.items() if key not in arrays},
        }
        content = to_bytes(arrays)
        saved["arrays"] = hashlib.sha256(content).hexdigest()
        _replace(path / ARRAYS, content)
        _replace(path / SETTINGS, json.dumps(saved, indent=1).encode())

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a saved tokenizer. Raise ValueError for a folder without one, or of another kind."""
        path = Path(folder)
        try:
            saved = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
            content = (path / ARRAYS).read_bytes()
            if saved["arrays"] != hashlib.sha256(content).hexdigest():
                raise OSError("its two files are of two tokenizers")
            arrays = from_bytes(content)
            tokenizer = cls._class_of(saved["type"])(**saved["options"])
            tokenizer.load_state({**saved["state"], **arrays})
        except (OSError, KeyError, TypeError, json.JSONDecodeError, SafetensorError) as error:
            raise ValueError(
                f"{path}: holds no whole tokenizer of signals ({error}); expected {SETTINGS} and "
                f"{ARRAYS}, as `save` writes them"
            ) from error
        return tokenizer

    @classmethod
    def _class_of(cls, name: str) -> type[Self]:
        """Return the class that a file names: this one, or one of the registry."""
        classes: dict[str, Any] = {cls.__name__: cls}
        if name != cls.__name__:
            for path in _registered():
                module, _, class_name = path.partition(":")
                if class_name == name:
                    classes[class_name] = getattr(import_module(module), class_name)
        if name not in classes or not issubclass(classes[name], cls):
            raise ValueError(
                f"{SETTINGS} was saved by {name}, which is no {cls.__name__}; load it with "
                f"{name}.load"
            )
        saved_class: type[Self] = classes[name]
        return saved_class


def _registered() -> list[str]:
    """Return the lazy strings of the tokenizers of the package's modalities."""
    paths = []
    for modality in MODALITIES.values():
        module, _, name = modality.partition(":")
        declared = getattr(import_module(f"{__package__}.{module.rpartition('.')[2]}"), name)
        paths += declared.tokenizers.values()
    return paths


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o666 & ~_umask())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _options(kind: type) -> list[str]:
    return list(inspect.signature(kind).parameters)


class TokenProcessor(Processor):
    """`{"ids": long [L]}` of a signal by a fitted tokenizer."""

    def __init__(self, tokenizer: SignalTokenizer) -> None:
        self.tokenizer = tokenizer

    def prepare(self, raw: Any) -> Sample:
        """Return the ids of a raw value. Raise ReadError for a signal without any."""
        ids = self.tokenizer.encode([raw])[0]
        if not len(ids):
            raise ReadError(raw, "the tokenizer returns no token", "a signal that is not empty")
        return {"ids": ids}

    def settings(self) -> dict[str, Any]:
        return {"tokenizer": fingerprint(self.tokenizer)}


class TokenEncoder(Encoder):
    """A learned vector of `dim` numbers for each token of a signal; `codes` are the ids.

    A modality declares its own subclass, whose tokenizers have the short names of the modality.
    """

    def __init__(self, tokenizer: SignalTokenizer, dim: int) -> None:
        super().__init__()
        self.supports = frozenset({"codes", *(("aligned",) if tokenizer.aligned else ())})
        self.tokenizer, self.dim = tokenizer, dim
        self.processor = TokenProcessor(tokenizer)
        self.table = nn.Embedding(tokenizer.size, dim)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return ids `[B, L]`, padded on the right with 0, and their mask `[B, L]`."""
        ids = nn.utils.rnn.pad_sequence([s["ids"] for s in samples], batch_first=True)
        lengths = torch.tensor([len(s["ids"]) for s in samples])
        return {"ids": ids, "mask": torch.arange(ids.shape[1]) < lengths[:, None]}

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        """ids, mask `[B, L]` -> tokens `[B, L, D]`, zero in the padding."""
        places: dict[str, Any] = {}
        if (span := self.tokenizer.span) is not None:
            places = {"grid": (ids.shape[1],), "spacing": (span,), "origin": (span / 2,)}
        return Features(self.table(ids) * mask[..., None], mask, codes=ids, **places)


def check_ids(ids: Any, size: int, who: str) -> list[int]:
    """Return ids as integers. Raise ValueError, with the position, for one out of `[0, size)`."""
    values = [int(i) for i in (ids.tolist() if isinstance(ids, Tensor) else ids)]
    for position, value in enumerate(values):
        if not 0 <= value < size:
            raise ValueError(f"{who}: position {position}: found {value}, expected 0 to {size - 1}")
    return values


class Codebook:
    """`K` centroids by k-means. vectors: `[K, D]` float32, all different."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self._table = torch.from_numpy(self.vectors).double()
        self._norms = self._table.square().sum(1)

    @classmethod
    def fit(cls, blocks: Iterable[np.ndarray], codes: int, limit: int = 100_000) -> Codebook:
        """Fit blocks `[n, D]`, of which at most about `limit` vectors are kept, evenly spread.
        Raise ValueError if fewer than `codes` vectors differ."""
        from sklearn.cluster import MiniBatchKMeans

        vectors = _sample(blocks, limit)
        different = np.unique(vectors, axis=0)
        if len(different) < codes:
            raise ValueError(
                f"codes: found {codes}, and the training split has {len(different)} different "
                "vectors; lower codes, or add data"
            )
        kmeans = MiniBatchKMeans(codes, random_state=0, n_init=3, batch_size=4096)
        return cls(_distinct(kmeans.fit(vectors).cluster_centers_, different))

    def nearest(self, vectors: Tensor, rows: int = 4096) -> Tensor:
        """Return the index of the nearest centroid of each of `[n, D]`: `[n]` long."""
        chunks = vectors.double().cpu().split(rows)
        parts = [(self._norms - 2 * chunk @ self._table.T).argmin(1) for chunk in chunks]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)


def _sample(blocks: Iterable[np.ndarray], limit: int) -> np.ndarray:
    """Return the vectors of all blocks; of more than `limit`, every second one, and so on."""
    stride, kept, count = 1, [np.zeros((0, 0))], 0
    for block in blocks:
        kept = kept[1:] if not kept[0].size else kept
        kept.append(np.asarray(block)[-count % stride :: stride])
        count += len(block)
        if sum(map(len, kept)) > limit:
            kept, stride = [np.concatenate(kept)[::2]], 2 * stride
    return np.concatenate(kept)


def _distinct(centroids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Replace centroids that occur twice by vectors of the data that are none of them."""
    _, first = np.unique(centroids, axis=0, return_index=True)
    taken = {row.tobytes() for row in centroids[first]}
    spare = (row for row in vectors if row.astype(centroids.dtype).tobytes() not in taken)
    for index in sorted(set(range(len(centroids))) - set(first.tolist())):
        centroids[index] = next(spare)
    return centroids
