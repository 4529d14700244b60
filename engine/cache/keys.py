"""What decides the records of a store.

An identity is content: a changed weight, setting, source file, layer or precision is
another identity, so another store; nothing has to be invalidated.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...modalities import base
from ...modalities.base import Encoder, Fittable, Part, Processor, Sample
from ..utils import RuntimeFailure
from .records import to_array
from .shard import Record
from .store import CONTENT


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all parameters and buffers."""
    return _tensors_hash({**dict(module.named_parameters()), **dict(module.named_buffers())})


def content_hash(sample: Sample) -> str:
    """SHA-256 of a sample: what a record of features was made from."""
    return _tensors_hash(sample)


def add_content_hash(record: Record, sample: Sample) -> Record:
    """The record, with the hash of its sample, for `Store.verify(content)`."""
    return {**record, CONTENT: np.frombuffer(bytes.fromhex(content_hash(sample)), np.uint8)}


def processor_identity(processor: Processor) -> dict[str, Any]:
    """What decides a sample: the class, its source, its settings and fitted states."""
    return {**_class_identity(type(processor)), "settings": _plain(processor.settings())}


def encoder_identity(
    encoder: Encoder,
    *,
    layers: Sequence[int] = (),
    precision: str = "float32",
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What decides an encoder's features.

    options: the recipe's resolved section; it holds what no weight shows (a number of heads,
    which layer is read).
    """
    inner = {
        name: _class_identity(type(module))
        for name, module in encoder.named_modules()
        if name and isinstance(module, Part)
    }
    return {
        **_class_identity(type(encoder)),
        **({"inner": inner} if inner else {}),
        "options": _plain(options or {}),
        "processor": processor_identity(encoder.processor),
        "weights": weights_hash(encoder),
        "layers": list(layers),
        "precision": precision,
    }


def _tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        if tensor.is_meta:
            raise RuntimeFailure(f"cache: {name} is on the meta device and has no values to hash")
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(to_array(tensor.contiguous().view(-1).view(torch.uint8)).data)
    return digest.hexdigest()


def _class_identity(kind: type) -> dict[str, Any]:
    """The class, and the files that it and its parents are written in: changed code is a miss.

    Left out are Python, torch and the contracts, which decide nothing of their own.
    """
    foreign = {*sys.stdlib_module_names, "torch"}
    files = {
        _source_file(c)
        for c in kind.__mro__
        if c.__module__ != base.__name__ and c.__module__.partition(".")[0] not in foreign
    }
    digests = sorted(hashlib.sha256(Path(f).read_bytes()).hexdigest() for f in files if f)
    return {"class": f"{kind.__module__}:{kind.__qualname__}", "source": digests}


def _source_file(kind: type) -> str | None:
    try:
        file = inspect.getsourcefile(kind)
    except TypeError:  # built in, or made at a prompt
        return None
    return file if file and Path(file).is_file() else None


def _plain(value: Any) -> Any:
    """The value as JSON; arrays and fitted states by their hash. Raises TypeError."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(v) for v in value), key=repr)
    if isinstance(value, (np.ndarray, np.generic)):
        return {"array": _tensors_hash({"": torch.from_numpy(np.array(value))})}
    if isinstance(value, Tensor):
        return {"array": _tensors_hash({"": value})}
    if isinstance(value, (Path, torch.dtype)):
        return str(value)
    if isinstance(value, Fittable):
        return {**_class_identity(type(value)), "state": _plain(value.state())}
    if isinstance(value, Processor):
        return processor_identity(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    raise TypeError(f"cache: a setting of type {type(value).__name__} cannot be part of a key")
